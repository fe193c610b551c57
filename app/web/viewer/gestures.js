// Mouse, pen, fingers and wheel on a canvas -> what is meant by them.

const OCTAVE = 380; // pixels of a wheel that double the size: a notch makes a quarter more
const LINE = 33; // pixels of a wheel that counts in lines
const PINCH = 5; // a pinch on a touch pad comes as a wheel that turns slowly
const MOUSE = { left: 0, middle: 1, right: 2 };

/**
 * Listen on `canvas` until `signal` aborts. `tool()` answers "window" or "pan"; positions are
 * [x, y] and movements [across, down] in CSS pixels of the canvas. `meant` are functions:
 * `pan(movement)`, `window(movement)`, `zoom(factor, at)`, `toggle(at)`, `hover(at | null)`,
 * `begin(meaning)` and `end()` of a drag.
 */
export function listen(canvas, tool, meant, signal) {
  const down = new Map(); // pointer -> its last position
  let means = null; // of the drag

  const on = (event, listener) =>
    canvas.addEventListener(event, listener, { signal, passive: false });

  const at = (event) => {
    const box = canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  };

  function press(event) {
    if (down.size >= 2 || event.button > MOUSE.right) return;
    canvas.setPointerCapture(event.pointerId);
    down.set(event.pointerId, at(event));
    means = down.size === 2 ? "pinch" : meaning(event, tool());
    meant.begin(means);
  }

  function move(event) {
    const before = down.get(event.pointerId);
    if (!before) {
      if (event.pointerType !== "touch") meant.hover(at(event));
      return;
    }
    const now = at(event);
    if (means === "pinch") pinch(event.pointerId, before, now);
    else meant[means](difference(now, before));
    down.set(event.pointerId, now);
  }

  function pinch(pointer, before, now) {
    const other = [...down].find(([each]) => each !== pointer)?.[1];
    if (!other) return; // the finger that is lifted last does nothing more
    const to = middle(now, other);
    meant.pan(difference(to, middle(before, other)));
    meant.zoom(apart(now, other) / apart(before, other), to);
  }

  function release(event) {
    if (down.delete(event.pointerId) && !down.size) meant.end();
  }

  on("pointerdown", press);
  on("pointermove", move);
  on("pointerup", release);
  on("pointercancel", release);
  on("lostpointercapture", release);
  on("pointerleave", () => meant.hover(null));
  on("contextmenu", (event) => event.preventDefault());
  on("mousedown", (event) => {
    if (event.button === MOUSE.middle) event.preventDefault(); // no scrolling by itself
  });
  on("dblclick", (event) => meant.toggle(at(event)));
  on("wheel", (event) => {
    event.preventDefault();
    const pixels = event.deltaY * (event.deltaMode ? LINE : 1) * (event.ctrlKey ? PINCH : 1);
    meant.zoom(2 ** -Math.min(1, Math.max(-1, pixels / OCTAVE)), at(event));
  });
}

function meaning({ button, shiftKey }, tool) {
  if (button === MOUSE.right) return "window";
  return button === MOUSE.middle || shiftKey ? "pan" : tool;
}

const difference = (one, other) => [one[0] - other[0], one[1] - other[1]];
const middle = (one, other) => [(one[0] + other[0]) / 2, (one[1] + other[1]) / 2];
const apart = (one, other) => Math.max(8, Math.hypot(...difference(one, other)));
