// How well the model reads each group of cases: a table with the intervals drawn in it.

import { el, svg } from "../dom.js";
import { linear } from "../plots/scale.js";
import { words } from "../words.js";

const SIZE = [130, 24];

export function subgroupTable({ subgroups, roc }) {
  const intervals = subgroups.map(({ auc }) => auc).filter(Boolean);
  const least = Math.min(0.4, ...intervals.map(({ low }) => Math.floor(10 * low) / 10));
  const x = linear([least, 1], [4, SIZE[0] - 4]);
  const columns = [...new Set(subgroups.map(({ column }) => column))];
  return el(
    "table",
    { class: "forest" },
    el("caption", { class: "unseen" }, words.about.subgroups),
    el(
      "thead",
      {},
      el("tr", {},
        ...words.about.subgroupColumns.map((name, index) =>
          el("th", { scope: "col", colSpan: index === 2 ? 2 : 1 }, name))),
    ),
    ...columns.map((column) =>
      el(
        "tbody",
        {},
        head(column, subgroups),
        ...subgroups.filter((group) => group.column === column).map((group) => row(group, x, roc)),
      )),
  );
}

function head(column, subgroups) {
  const { per } = subgroups.find((group) => group.column === column);
  return el(
    "tr",
    {},
    el("th", { scope: "rowgroup", colSpan: 4, class: "forest-column" },
      column, el("span", { class: "muted" }, ` ${words.about.rocUnits[per]}`)),
  );
}

function row(group, x, roc) {
  const { auc } = group;
  return el(
    "tr",
    {},
    el("th", { scope: "row" }, group.group),
    el("td", {}, words.about.cancers(group)),
    auc
      ? el("td", { class: "forest-bar" }, bar(auc, x, roc[group.per].auc.value))
      : el("td", { class: "muted", colSpan: 2 }, words.about.few),
    auc
      ? el("td", { class: "forest-text" }, words.about.estimate(auc))
      : null,
  );
}

/** The interval as a line; what it says stands beside it. */
function bar({ value, low, high }, x, overall) {
  const middle = SIZE[1] / 2;
  const line = (name, at) => svg("line", { class: name, x1: x(at), x2: x(at), y1: 0, y2: SIZE[1] });
  return svg(
    "svg",
    { class: "plot", viewBox: `0 0 ${SIZE.join(" ")}`, "aria-hidden": "true" },
    line("chance", 0.5),
    line("overall", overall),
    svg("line", { class: "interval", x1: x(low), x2: x(high), y1: middle, y2: middle }),
    svg("circle", { class: "bin", cx: x(value), cy: middle, r: 3.5 }),
  );
}
