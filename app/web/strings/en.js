// Every word of the page in English. A translation is a copy of this file under its language's
// code. Values are texts, or functions of what is named in them.

const percent = (share) => `${Math.round(100 * share)} %`;

export default {
  page: {
    title: "Mammoseq",
    research: "Research use only. Not a medical device. Not for decisions about patients.",
  },
  viewer: {},
  about: {},
  numbers: { percent },
};
