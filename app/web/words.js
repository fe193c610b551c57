// The words of the page in the language that is chosen: `words.viewer.fit`.

import english from "./strings/en.js";

export const words = english;
