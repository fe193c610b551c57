// Elements without markup in strings: nothing on this page is parsed as HTML.

/**
 * Make an element. `properties` are DOM properties, but for: `class`, `data` (an object), `on` (an
 * object of listeners), and names with a hyphen or `role`, `for`, which are attributes. Children are
 * nodes or texts; null and false are left out.
 */
export function el(name, properties = {}, ...children) {
  return filled(document.createElement(name), properties, children);
}

/** The same for SVG, where everything is an attribute. */
export function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children.flat().filter(isThere));
  return node;
}

/** Put `children` in the place of what `node` holds. */
export function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter(isThere));
  return node;
}

/** Put `text` into `node`, unless it is there: a screen reader would tell it again. */
export function say(node, text) {
  if (node.textContent !== text) fill(node, text);
}

function filled(node, { class: classes, data = {}, on = {}, ...properties }, children) {
  if (classes) node.className = classes;
  Object.assign(node.dataset, data);
  for (const [event, listener] of Object.entries(on)) node.addEventListener(event, listener);
  for (const [key, value] of Object.entries(properties)) {
    if (value === null || value === undefined) continue;
    if (key.includes("-") || key === "role" || key === "for") node.setAttribute(key, value);
    else node[key] = value;
  }
  node.append(...children.flat().filter(isThere));
  return node;
}

const isThere = (child) => child !== null && child !== undefined && child !== false;
