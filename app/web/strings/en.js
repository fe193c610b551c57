// Every word of the page in English. A translation is a copy of this file under its language's
// code. Values are texts, or functions of what is named in them.

const percent = (share) => `${Math.round(100 * share)} %`;
const whole = (value) => String(Math.round(value));
const tenths = (value) => value.toFixed(1);

/** Texts beside each other that break between them only. */
const unbroken = (...texts) =>
  texts.filter(Boolean).map((text) => text.replaceAll(" ", "\u00a0")).join("  ");

export default {
  page: {
    title: "Mammoseq",
    research: "Research use only. Not a medical device. Not for decisions about patients.",
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
      most: "most in this answer",
      means: (target) =>
        `Where the evidence for “${target.replaceAll("_", " ")}” lies, by Grad-CAM. Colours are ` +
        "relative to the largest value of all pictures in this answer.",
      marks:
        "The ring is at the largest value of a picture; the box holds what joins it at half of it.",
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
  about: {},
  numbers: { percent },
};
