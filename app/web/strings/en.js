// Every word of the page in English. A translation is a copy of this file under its language's
// code. Values are texts, or functions of what is named in them.

const percent = (share) => `${Math.round(100 * share)} %`;
// Nothing is certain: what is not all or none is not written as such
const percentFine = (share) => {
  if (share > 0 && share < 0.0005) return "< 0.1 %";
  if (share < 1 && share >= 0.9995) return "> 99.9 %";
  return `${(100 * share).toFixed(1)} %`;
};
const hundred = (share) => Math.round(100 * share);
const many = (count, one, more) => `${count} ${count === 1 ? one : more}`;

function signed(change) {
  const points = Math.abs(100 * change).toFixed(0);
  if (points === "0") return "±0";
  return `${change < 0 ? "−" : "+"}${points}`;
}
const among = (share, [low, high]) => `${hundred(share)} [${hundred(low)} to ${hundred(high)}]`;
const estimate = ({ value, low, high }) =>
  `${value.toFixed(3)} [${low.toFixed(3)} to ${high.toFixed(3)}]`;
const range = (counts) => [...new Set([Math.min(...counts), Math.max(...counts)])].join(" to ");

function duration(seconds) {
  const minutes = Math.floor(seconds / 60);
  const [days, hours] = [Math.floor(minutes / 1440), Math.floor(minutes / 60) % 24];
  if (days) return `${many(days, "day", "days")}, ${many(hours, "hour", "hours")}`;
  if (hours) return `${many(hours, "hour", "hours")}, ${many(minutes % 60, "minute", "minutes")}`;
  if (minutes) return many(minutes, "minute", "minutes");
  return many(Math.floor(seconds), "second", "seconds");
}

const classes = { malignant: "malignant", no_cancer: "no cancer" };
const points = {
  balanced: "Balanced",
  "sensitivity-90": "Misses few (sensitivity 90 %)",
  "specificity-90": "Few false alarms (specificity 90 %)",
};
const sides = { L: "Left", R: "Right", "": "Side?" };

// By code, as docs/problems.md lists them; the service adds where it is
const problems = {
  not_found: "There is no such address.",
  method_not_allowed: "The service does not do that.",
  invalid_request: "The request is not valid.",
  invalid_multipart: "The files did not arrive as they should.",
  broken_archive: "The zip archive cannot be read.",
  invalid_json: "The request is not valid.",
  invalid_tensor: "A tensor is not what the model takes.",
  no_file: "No image was sent.",
  several_files: "More than one image was sent.",
  invalid_series: "The description of the exams is not valid.",
  unknown_file: "A file of the exams was not sent.",
  undescribed_file: "A file belongs to no exam.",
  ambiguous_file_name: "Two files have the same name.",
  unknown_operating_point: "The model has no such operating point.",
  unknown_class: "The model has no such class.",
  unknown_model: "The model that read these images is no longer in service. Read them again.",
  body_too_large: "That is more than the service takes at once. Read fewer images at a time.",
  too_many_pixels: "The image has more pixels than the service takes.",
  too_many_exams: "These are more exams than the service takes at once.",
  too_many_images: "These are more images than the service takes at once.",
  overloaded: "The service is busy. Try again in a moment.",
  deadline_exceeded: "It took too long. Try again, with fewer images at a time.",
  empty_file: "The file is empty.",
  unsupported_format: "Not an image: DICOM, PNG, JPEG and TIFF can be read.",
  broken_image: "The image is damaged or cut short and cannot be decoded.",
  several_frames: "The file holds several images; send one two-dimensional image per file.",
  no_pixels: "The DICOM file holds no image.",
  unsupported_transfer_syntax: "The compression of this DICOM file cannot be read.",
  unsupported_photometric: "The DICOM image is not grey.",
  unsupported_depth: "The pixel depth cannot be read: 8 and 16 bit unsigned grey can.",
  no_breast_found: "No breast was found in the image.",
  own_result: "This is a result of Mammoseq, not a mammogram.",
  other_modality: "The image is of another modality.",
  tomosynthesis: "The image is part of a tomosynthesis; send the two-dimensional image.",
  for_processing: "The image is for processing; send the one for presentation.",
  specimen: "The image shows a specimen.",
  spot_view: "A spot compression view: the model reads whole breasts only.",
  magnification: "A magnification view: the model reads whole breasts only.",
  biopsy_view: "The image was made to guide a biopsy.",
  contrast_image: "The image shows contrast medium.",
  blank_image: "The image is blank.",
  image_too_small: "The breast is too small in the image.",
  colour_image: "The image is in colour.",
  breast_cut_off: "The breast is cut off.",
  saturated_image: "The image is saturated.",
  not_a_mammogram: "The image does not look like a mammogram.",
  unfamiliar_image: "The image is unlike those that the model has learned from.",
  no_exam_date: "A date is missing.",
  duplicate_exam_date: "Two exams have the same date.",
  mixed_patients: "The images are of more than one patient.",
  mixed_breasts: "The images are of both breasts.",
  duplicate_image: "The same image is there twice.",
  nothing_to_read: "None of the images is a mammogram that can be read.",
  not_acceptable: "The service has no such form of answer.",
  not_dicom: "Results in DICOM can only be made of DICOM images.",
  not_ready: "The service cannot compute at the moment.",
  internal_error: "The service failed. Nothing was stored.",
  login_required: "Log in first.",
  login_failed: "User or password is wrong.",
  login_locked: "Too many failures.",
  csrf_failed: "The request did not come from this page. Load it again.",
  wrong_host: "This address is not that of the service.",
  forbidden: "You may not do that.",
  rate_limited: "Too many requests. Try again in a moment.",
  slow_body: "The files came too slowly. Try again on a better line, or with fewer at a time.",
  header_too_large: "The request is not valid.",
  audit_unavailable: "The service cannot record what it does, and so does nothing.",
  provider_unreachable: "The provider of identities does not answer.",
  unreachable: "The service does not answer. Is it running, is the network there?",
  file_changed: "The file was changed, moved or deleted since it was chosen. Choose it again.",
  broken_page: "This page failed. Load it again.",
  unexpected: "The service answered what this page does not understand.",
};

// Why a file was left out, where that is no problem of the file
const leftOut = {
  duplicate_image: "The same image as another file.",
  older_image: "The same view was taken again later.",
  synthetic_image: "Computed from a tomosynthesis; the exposed view was read.",
  breast_unknown: "The file does not say which breast it shows.",
};
const warnings = {
  files_left_out: () => "Some files were not read: they are listed above.",
  long_gap: ({ exam, detail }) =>
    exam ? `The exam of ${exam.exam_date} is ${exam.days_since_previous} days after the one before it.`
      : detail,
};

// Where the service says how many it takes
const limited = {
  too_many_exams: (most) => `The service takes ${most} exams at once. Leave out the oldest.`,
  too_many_images: (most) => `The service takes ${most} images at once. Leave out the oldest exams.`,
};

/** What a refusal means, and which file it is about if the service says so. */
function problem({ code, detail, file }) {
  const text = Object.hasOwn(problems, code) ? problems[code] : problems.unexpected;
  if (code === "nothing_to_read") return [text, ...reasons(detail ?? "")].join(" ");
  const most = Object.hasOwn(limited, code) && /at most (\d+)/i.exec(detail ?? "")?.[1];
  if (most) return limited[code](most);
  return file ? `${file}: ${text}` : text;
}

const reasons = (detail) =>
  [...new Set(Array.from(detail.matchAll(/\d+ ([a-z_]+)/g), ([, code]) => why(code)))];
const why = (code) => leftOut[code] ?? problem({ code });

const frameParts = (image, date, side) =>
  [[side ?? image.laterality, image.view].filter(Boolean).join(" "), date].filter(Boolean);

const wait = (seconds) =>
  seconds > 90 ? many(Math.ceil(seconds / 60), "minute", "minutes") : many(seconds, "second", "seconds");
const whole = (value) => String(Math.round(value));
const tenths = (value) => value.toFixed(1);

/** Texts beside each other that break between them only. */
const unbroken = (...texts) =>
  texts.filter(Boolean).map((text) => text.replaceAll(" ", "\u00a0")).join("  ");
const bracketed = (share) => unbroken(`(${percentFine(share)})`);

export default {
  page: {
    title: "Mammoseq",
    what: "Breast cancer probability from mammograms over time, and the evidence for it.",
    notice: "What it is not for",
    research: "Research use only. Not a medical device. Not for decisions about patients.",
    skip: "To the content",
    light: "Light",
    dark: "Dark",
    served: "The model in service",
    model: ({ name, version, provider }) =>
      `${name} ${version} on ${/CUDA|Tensorrt/.test(provider) ? "GPU" : "CPU"}`,
  },
  nav: { label: "Views", read: "Read", model: "About the model" },
  numbers: {
    percent,
    percentFine,
    points: (change) =>
      change === null ? "" : `${change < 0 ? "−" : "+"}${Math.abs(100 * change).toFixed(1)}`,
  },
  problem,
  problems,
  warning: (warning) => {
    const { code, detail, file } = warning;
    return warnings[code]?.(warning) ?? (file ? `${file}: ${detail}` : detail);
  },
  classes: (name) => classes[name] ?? name,
  points: (name) => points[name] ?? name,
  sides,
  login: {
    user: "User",
    password: "Password",
    enter: "Log in",
    leave: "Log out",
    oidc: "Log in with your organisation",
    empty: "Both are needed.",
    over: "Your session is over",
    inAnotherWindow: "It opens another window. This one keeps its images.",
    done: "You are logged in. Close this window and go on in the other one.",
    open: "No login",
    openAbout: "The service is open. Unless it was set so, it listens on this machine only.",
    insecure:
      "This page came over plain HTTP, where a password could be read on its way: a login only " +
      "works over HTTPS.",
    none: "There is no login for people here: the service takes API keys only.",
    refused: (fault) =>
      fault.code === "login_locked" && fault.retryAfter
        ? `Too many failures. Try again in ${wait(fault.retryAfter)}.`
        : problem(fault),
    refusedThere: (fault) =>
      fault.code === "login_failed"
        ? "The login with your organisation did not succeed. Begin it again here."
        : problem(fault),
  },
  shelf: {
    title: "Images",
    images: "Images to read, in time order",
    drop: "Drop mammograms here",
    accepts: "DICOM, PNG, JPEG or TIFF: one image, the exams of a breast, a folder or a zip archive",
    choose: "Choose files",
    folder: "Choose a folder",
    example:
      "No mammogram at hand? Take three exams with a simulated mass (from CBIS-DDSM, CC BY 3.0)",
    clear: "Remove all",
    remove: (name) => `Remove ${name}`,
    again: (count) => `Look again at ${count}`,
    leaveOut: (count) => `Leave out ${count} that cannot be read`,
    count: (images, exams) =>
      exams ? `${many(images, "image", "images")}, ${many(exams, "date", "dates")}`
        : many(images, "image", "images"),
    noView: "View?",
    fields: { date: "Date", laterality: "Side", view: "View" },
    faults: {
      date: {
        missing: "The date puts the exams in order.",
        invalid: "Not a date.",
        future: "A date to come.",
        old: "Before there were mammograms.",
      },
      laterality: { missing: "Which breast? Others have a side." },
      view: { missing: "Others of this exam have a view.", invalid: "Two to four letters." },
    },
    unacceptable: {
      none: "There is no file in it that could be an image.",
      unreadable: "A file or folder cannot be read: it was moved, deleted or is not for you.",
      files: "More than 256 files: choose fewer.",
      bytes: "The archive unpacks to more than 1 GB: choose fewer files.",
      archive: "The zip archive is damaged, encrypted or of a kind that cannot be opened here.",
    },
  },
  read: {
    go: (count) => (count > 1 ? `Read ${count} images` : "Read the image"),
    notYet: "Not yet: see what is marked at the images.",
    cancel: "Cancel",
    cancelled: "Cancelled.",
    progress: "Progress",
    sending: (share) => `Sending: ${percent(share)}`,
    reading: "Reading …",
    again: "Try again",
    old: "The list of images has changed: this result is of the images as they were read.",
    done: (breasts) => (breasts > 1 ? `${breasts} breasts read.` : "Read."),
    anyway: "Read anyway, for research",
  },
  result: {
    title: "Result",
    probability: "Probability",
    breasts: "Breasts",
    breast: (side) => ({ L: "Left breast", R: "Right breast" })[side] ?? "Breast",
    headline: (side) => ({ L: "Left breast", R: "Right breast" })[side] ?? "One breast, side unknown",
    exam: (date) => (date ? `Exam of ${date}` : "Exam"),
    frame: (...known) => frameParts(...known).join(" ") || "Mammogram",
    frameParts,
    alone: "Enlarge",
    aloneAbout: (name) => `Enlarge ${name}`,
    together: "All exams",
    loading: "Loading the picture …",
    coarse: "Coarse: all pixels are on their way …",
    inverted: "shown turned: the file has a bright background",
    called: (is, point) =>
      `${is ? "called at" : "not called at"} “${point.name}” ${bracketed(point.threshold)}`,
    soFar: "so far",
    verdict: (is, point) =>
      is
        ? `At or above the operating point ${bracketed(point.threshold)}: called.`
        : `Below the operating point ${bracketed(point.threshold)}: not called.`,
    band: ({ low, high }) =>
      `Among validation breasts scored like this, cancer was found in ${hundred(low)} to ` +
      `${hundred(high)} of 100 (95 % interval).`,
    noBand: "No interval: the validation data have too few breasts scored like this.",
    prevalence: (share) =>
      `Of all validation breasts, ${hundred(share)} of 100 had cancer, far more than in ` +
      "screening: there the same probability means less.",
    noFigures: "No interval: this model comes without figures.",
    point: "Operating point",
    meaning: ({ sensitivity, specificity, measured_on }) =>
      `Of 100 breasts with cancer it calls ${hundred(sensitivity)}; of 100 without, it leaves ` +
      `${hundred(specificity)} alone. Measured on ${measured_on}.`,
    overTime: "Over time",
    moves: "How much each exam moved the probability",
    columns: ["Exam", "After", "Probability", "Moved by, points"],
    days: (days) => (days < 60 ? many(days, "day", "days") : `${(days / 30.44).toFixed(0)} months`),
    warnings: "Warnings",
    leftOut: why,
    onPaper: "More than one breast was read, and this is one. The page's own button prints all.",
    ways: "To the exam of",
    ignored: (count) => `${many(count, "file was", "files were")} left out`,
    by: (model, answer) =>
      `${answer.model.name} ${answer.model.version}, request ${answer.request_id}. ` +
      `${model.intended_use}`,
  },
  takeaway: {
    title: "Take away",
    forms: { json: "JSON", sr: "DICOM SR", sc: "DICOM SC", fhir: "FHIR", print: "Print or PDF" },
    about: {
      json: "The whole answer of the service",
      sr: "A structured report for the PACS",
      sc: "The pictures with their heatmaps for the PACS",
      fhir: "A FHIR R4 bundle for the record",
      print: "To print, or to save as PDF: a page for each breast",
    },
    study: "Files hold all breasts of the study.",
    needsDicom: "Needs DICOM images",
    making: "Making it …",
    saved: (count) => `${many(count, "file", "files")} saved.`,
  },
  help: {
    open: "Keys",
    title: "Keys",
    close: "Close",
    about: "All but Tab are for the picture that has the focus.",
    keys: [["Tab", "to the next control"], ["?", "this list"]],
  },
  viewer: {
    about:
      "Drag for the window, with Shift to move the picture, turn the wheel to zoom. Arrow keys " +
      "move, plus and minus zoom, question mark lists all keys.",
    toolbar: "Tools of the pictures",
    tools: {
      window: { label: "Drag changes window and level" },
      pan: { label: "Drag moves the picture" },
      zoomOut: { label: "Smaller", key: "-" },
      zoomIn: { label: "Larger", key: "+" },
      fit: { label: "Whole picture", key: "0" },
      actualSize: { label: "Every pixel", key: "1" },
      invert: { label: "Black for white", key: "i" },
      heatmap: { label: "Show the heatmap", key: "h" },
      reset: { label: "As at first", key: "r" },
    },
    oneToOne: "1:1",
    sliders: { level: "Level", width: "Width", opacity: "Opacity" },
    settings: (width, level, zoom, isTurned) =>
      unbroken(`W ${whole(width)}`, `L ${whole(level)}`, percent(zoom), isTurned && "inverted"),
    pointer: ({ column, row, grey, spacing }) => {
      const mm = spacing && [(column + 0.5) * spacing[1], (row + 0.5) * spacing[0]].map(tenths);
      return unbroken(`${column}, ${row} px`, mm && `${mm.join(", ")} mm`, `grey ${grey}`);
    },
    length: (mm) => (mm < 10 ? `${mm} mm` : `${mm / 10} cm`),
    saidZoom: (zoom) => `Zoom ${percent(zoom)}`,
    saidWindow: (width, level, isTurned) =>
      `Window ${whole(width)}, level ${whole(level)}${isTurned ? ", inverted" : ""}`,
    saidOpacity: (opacity) => (opacity ? `Heatmap ${percent(opacity)}` : "Heatmap off"),
    legend: {
      title: "Heatmap",
      least: "none",
      most: "most in this breast",
      means: (target) =>
        `Where the evidence for “${target.replaceAll("_", " ")}” lies, by Grad-CAM. Colours are ` +
        "relative to the largest value in all pictures of this breast.",
      marks:
        "The ring is at the largest value of each picture, however small that is; the box holds " +
        "what joins it at half of it.",
      meansNot: "It is not the outline of a lesion, and no probability at a place.",
    },
    shortcuts: [
      ["Arrows", "move the picture"],
      ["+ -", "zoom"],
      ["0", "whole picture"],
      ["1", "every pixel of the picture as one of the screen"],
      ["Shift + arrows", "window wider, narrower; brighter, darker"],
      ["i", "exchange black and white"],
      ["h", "heatmap on and off"],
      ["[ ]", "heatmap fainter, stronger"],
      ["r", "all as at first"],
      ["Wheel", "zoom at the pointer"],
      ["Drag", "what the chosen tool does; with Shift or the middle button it moves the picture"],
      ["Right drag", "window and level"],
      ["Double click", "every pixel, or the whole picture"],
    ],
  },
  plots: {
    data: "The data as a table",
    before: "before any exam",
    start: "start",
    day: (date) => date,
    month: (date) =>
      new Intl.DateTimeFormat("en", { month: "short", year: "numeric", timeZone: "UTC" })
        .format(new Date(date)),
    threshold: (name, threshold) => `${name}: ${percent(threshold)}`,
    change: (change) => `${signed(change)} points`,
    changeShort: (change) => signed(change),
    interval: ({ low, high }) =>
      low === null ? "no data" : `${hundred(low)} to ${hundred(high)} of 100`,
    timeName: (exams, threshold, name) =>
      `Probability over time: ${percentFine(exams[0].probability)} after the exam of ` +
      `${exams[0].date}` +
      (exams.length > 1
        ? `, ${percentFine(exams.at(-1).probability)} after that of ${exams.at(-1).date}`
        : "") +
      `; operating point “${name}” at ${percentFine(threshold)}`,
    timeKeys: "Probability over time: the arrow keys go from exam to exam",
    timeColumns: ["Exam", "Probability", "Cancer found in", "Changed by, points"],
    exam: ({ date, probability, low, high, change }) =>
      `${date}: ${percentFine(probability)}` +
      (low === null ? "" : `, cancer in ${hundred(low)} to ${hundred(high)} of 100 such breasts`) +
      (change === null ? "" : `, ${signed(change)} points`),
  },
  about: {
    loading: "Loading …",
    name: (model) => `${model.name} ${model.version}`,
    hash: "SHA-256 of its manifest, and thereby of all its files",
    trainedOn: "Trained on",
    trained: ({ images, breasts, patients }) =>
      `${images} images of ${breasts} breasts of ${patients} patients`,
    terms: "Terms of these data",
    use: "Intended use",
    measuredOn: "Measured on",
    unsaid: "Not told",
    precision: ({ precision }) => `the graphs in ${precision}`,
    points: "Operating points",
    pointsAbout: "What is called, and what it costs, at each of the model's thresholds:",
    point: ({ sensitivity, sensitivity_interval, specificity, specificity_interval }) =>
      `Of 100 breasts with cancer it calls ${among(sensitivity, sensitivity_interval)}, ` +
      `of 100 without it leaves ${among(specificity, specificity_interval)} alone.`,
    pointAt: (threshold) => `from ${percentFine(threshold)} on`,
    noFigures: "This model comes without figures: no plots.",
    roc: "Finding and false alarms",
    rocAbout:
      "Every threshold finds some cancers and raises some false alarms. The dashed line is chance.",
    rocName: (point, auc) =>
      `ROC curve: AUC ${estimate(auc)} per breast. At the operating point “${point.name}”, ` +
      `sensitivity ${percent(point.sensitivity)}, specificity ${percent(point.specificity)}.`,
    rocKeys: "ROC curve: the arrow keys go from threshold to threshold",
    rocX: "called of 100 without cancer",
    rocY: "called of 100 with cancer",
    rocUnits: { breast: "per breast", image: "per image" },
    auc: (unit, auc) => `${unit}: AUC ${estimate(auc)}`,
    rocAt: ({ threshold, sensitivity, false_positive_rate }) =>
      threshold === null
        ? "Nothing is called."
        : `From ${percentFine(threshold)} on: calls ${hundred(sensitivity)} of 100 with cancer, ` +
          `${hundred(false_positive_rate)} of 100 without.`,
    rocRest: "Point at the curve, or use the arrow keys, to read its thresholds.",
    rocColumns: ["Called from", "of 100 with cancer", "of 100 without"],
    reliability: "What a probability means",
    reliabilityAbout: (bins) =>
      `Each point stands for ${range(bins.map(({ count }) => count))} breasts that were given ` +
      "about the same probability: in what part of them cancer was found, with its 95 % " +
      "interval. On the dashed line probability and finding agree; the band is what the data allow.",
    reliabilityName: (bins) =>
      `Reliability: cancer was found in ${percent(bins[0].observed.value)} of breasts given ` +
      `${percent(bins[0].probability)}, and in ${percent(bins.at(-1).observed.value)} of those ` +
      `given ${percent(bins.at(-1).probability)}`,
    reliabilityKeys: "Reliability: the arrow keys go from point to point",
    reliabilityX: "probability given",
    reliabilityY: "cancer found in",
    reliabilityAt: ({ probability, observed, count }) =>
      `${count} breasts given about ${percent(probability)}: cancer in ` +
      `${percent(observed.value)} [${hundred(observed.low)} to ${hundred(observed.high)}].`,
    reliabilityColumns: ["Probability", "Breasts", "Cancer found in", "95 % interval"],
    prevalence: (share) =>
      `${percent(share)} of these breasts had cancer, far more than in screening: there the same ` +
      "probability means less.",
    subgroups: "Subgroups",
    subgroupsAbout:
      "The area under the ROC curve (AUC) by group: dot and 95 % interval. The dashed line is " +
      "chance, the fine one all cases.",
    subgroupColumns: ["Group", "Cancers", "AUC and 95 % interval"],
    cancers: ({ positives, cases }) => `${positives} of ${cases}`,
    estimate,
    few: "too few to say",
    card: "Model card",
    state: "In service now",
    stateRows: {
      model: "Model",
      device: "Computes on",
      version: "Service",
      processes: "Processes",
      uptime: "Running for",
      requests: "Requests",
      images: "Images",
      rate: "Images per second",
    },
    device: (provider) =>
      /CUDA|Tensorrt/.test(provider) ? "GPU" : /CPU/.test(provider) ? "CPU" : provider,
    processes: ({ processes, workers }) =>
      `${processes}, with ${many(workers, "worker", "workers")} each`,
    uptime: duration,
    requests: ({ requests, in_flight }) => `${requests}, ${in_flight} of them now`,
    rate: (rate) => (rate === null ? "…" : rate < 10 ? rate.toFixed(1) : String(Math.round(rate))),
    stale: (fault) => `Not known at the moment: ${problem(fault)}`,
  },
};
