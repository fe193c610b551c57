// Images with what is known of them -> the requests to send, or what is missing, at its field.

export const VIEWS = ["CC", "MLO", "ML", "LM", "LMO", "XCCL", "XCCM", "FB", "SIO", "ISO", "CV", "AT"];

/**
 * @typedef {object} Image one image on the shelf
 * @property {number} id
 * @property {File} file
 * @property {object|null} facts what its file says: `image` of `Mammoseq-Image`
 * @property {{date: string, laterality: string, view: string}} typed "" where nothing was typed
 */

/** What is taken for true of an image: what was typed, else what its file says; "" if neither. */
export function known(image, field) {
  const inFile = field === "date" ? image.facts?.exam_date : image.facts?.[field];
  return image.typed[field] || inFile || "";
}

/**
 * What keeps `images` from being sent: `[{id, field, code}]`. A lone image needs nothing unless what is
 * typed overrules its file; several need dates to be put in order, and sides once one has a side.
 */
export function faults(images, today) {
  const found = [];
  const several = images.length > 1;
  const isDescribed = several || (images.length === 1 && overrules(images[0]));
  const sided = images.some((image) => known(image, "laterality"));
  for (const image of images) {
    const date = known(image, "date");
    if (date && !isDay(date)) found.push({ id: image.id, field: "date", code: "invalid" });
    else if (date > today) found.push({ id: image.id, field: "date", code: "future" });
    else if (date && date < "1913-01-01") found.push({ id: image.id, field: "date", code: "old" });
    else if (isDescribed && !date) found.push({ id: image.id, field: "date", code: "missing" });
    if (several && sided && !known(image, "laterality")) {
      found.push({ id: image.id, field: "laterality", code: "missing" });
    }
    const view = known(image, "view");
    if (image.typed.view && !/^[A-Z]{2,4}$/.test(view)) {
      found.push({ id: image.id, field: "view", code: "invalid" });
    }
    if (!view && viewTypedBeside(image, images)) {
      found.push({ id: image.id, field: "view", code: "missing" });
    }
  }
  return found;
}

/**
 * The requests for `images`, which have no faults: `[{path, query, images, series}]`, the images in the
 * order of sending. Where the files say everything, one request for all, sorted into breasts by the
 * service; where something was typed, one for each breast, with its description.
 */
export function requests(images) {
  if (images.length === 1) {
    const { date, laterality, view } = images[0].typed;
    // What a file says cannot be overruled by the query, but by a description
    if (!overrules(images[0])) {
      const query = { exam_date: date, laterality, view };
      return [{ path: "/predict", query, images, series: null }];
    }
  }
  if (!images.some(isTyped)) return [{ path: "/predict/series", query: {}, images, series: null }];
  const sides = [...new Set(images.map((image) => known(image, "laterality")))].sort();
  return sides.map((side) => {
    const ofSide = images.filter((image) => known(image, "laterality") === side);
    return { path: "/predict/series", query: {}, images: ofSide, series: described(ofSide, side) };
  });
}

/** The name of the file part of the image at this place: what users call files stays with them. */
export const partName = (index) => `image-${index}`;

function described(images, side) {
  const dates = [...new Set(images.map((image) => known(image, "date")))].sort();
  const exams = dates.map((date) => {
    const ofDate = images.filter((image) => known(image, "date") === date);
    const exam = { date, files: ofDate.map((image) => partName(images.indexOf(image))) };
    const views = ofDate.map((image) => known(image, "view"));
    return views.every(Boolean) ? { ...exam, views } : exam;
  });
  return side ? { laterality: side, exams } : { exams };
}

const isTyped = ({ typed }) => Boolean(typed.date || typed.laterality || typed.view);

function overrules({ typed, facts }) {
  const said = { date: facts?.exam_date, laterality: facts?.laterality, view: facts?.view };
  return Object.keys(said).some((key) => typed[key] && said[key] && typed[key] !== said[key]);
}

/** Views are described for all images of an exam or for none. */
function viewTypedBeside(image, images) {
  const isBeside = (other) => ["date", "laterality"].every((f) => known(other, f) === known(image, f));
  return images.some((other) => other.typed.view && isBeside(other));
}

function isDay(text) {
  const day = new Date(`${text}T00:00:00Z`);
  return !Number.isNaN(day.valueOf()) && day.toISOString().startsWith(text);
}
