// The model card: Markdown -> elements. Only the lexer of marked is used: no HTML is ever made of
// the text, and what looks like HTML in it stays text.

import { el } from "../dom.js";
import { lexer } from "../vendor/marked.js";

const SHIFT = 2; // a card's first heading stands below that of its section
const SAFE = /^https?:\/\//;

export function cardElement(markdown) {
  return el("div", { class: "card" }, ...lexer(markdown).map(block));
}

function block(token) {
  switch (token.type) {
    case "space":
    case "def":
      return null;
    case "heading":
      return el(`h${Math.min(6, token.depth + SHIFT)}`, {}, ...inline(token.tokens));
    case "paragraph":
      return el("p", {}, ...inline(token.tokens));
    case "text": // what a list item holds
      return el("span", {}, ...(token.tokens ? inline(token.tokens) : [token.text]));
    case "blockquote":
      return el("blockquote", {}, ...token.tokens.map(block));
    case "list":
      return el(
        token.ordered ? "ol" : "ul", {},
        ...token.items.map((item) => el("li", {}, ...item.tokens.map(block))),
      );
    case "code":
      return el("pre", {}, el("code", {}, token.text));
    case "hr":
      return el("hr");
    case "table":
      return table(token);
    default:
      return el("p", {}, token.raw.trim());
  }
}

function table({ header, rows }) {
  return el(
    "div",
    { class: "plot-scroll", tabIndex: 0, role: "group", "aria-label": header[0].text },
    el(
      "table",
      {},
      el("thead", {}, el("tr", {},
        ...header.map((cell) => el("th", { scope: "col" }, ...inline(cell.tokens))))),
      el("tbody", {}, ...rows.map(([first, ...others]) =>
        el(
          "tr",
          {},
          el("th", { scope: "row" }, ...inline(first.tokens)),
          ...others.map((cell) => el("td", {}, ...inline(cell.tokens))),
        ))),
    ),
  );
}

function inline(tokens) {
  return tokens.map((token) => {
    switch (token.type) {
      case "strong":
      case "em":
      case "del":
        return el(token.type, {}, ...inline(token.tokens));
      case "codespan":
        return el("code", {}, token.text);
      case "br":
        return el("br");
      case "link":
        return SAFE.test(token.href)
          ? el("a", { href: token.href, rel: "noreferrer" }, ...inline(token.tokens))
          : el("span", {}, ...inline(token.tokens));
      case "text":
      case "escape":
        return token.tokens ? el("span", {}, ...inline(token.tokens)) : token.text;
      default: // an image, or what would be HTML: as it stands
        return token.raw;
    }
  });
}
