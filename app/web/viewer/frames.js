// When viewers are drawn: together, once for what the screen shows next; coarsely while that would
// take so long that a drag lags behind the hand, and finely when it rests.

const SLOW = 20; // ms for all viewers together
const REST = 140; // ms

const waiting = new Set();
const coarse = new Set();
let frame = 0;
let rest = 0;

/** `paint(isCoarse)` is called when it is time: `soon()` asks for that, `now()` does it finely. */
export function createPainter(paint) {
  const painter = { paint, cost: 0 }; // of all its pixels, in ms
  return {
    soon() {
      waiting.add(painter);
      frame ||= requestAnimationFrame(paintAll);
    },
    now: () => paintFinely(painter),
    stop() {
      waiting.delete(painter);
      coarse.delete(painter);
    },
  };
}

function paintAll() {
  frame = 0;
  const painters = [...waiting];
  waiting.clear();
  const isSlow = painters.reduce((sum, { cost }) => sum + cost, 0) > SLOW;
  painters.forEach(isSlow ? paintCoarsely : paintFinely);
  if (isSlow) {
    clearTimeout(rest);
    rest = setTimeout(() => [...coarse].forEach(paintFinely), REST);
  }
}

function paintCoarsely(painter) {
  coarse.add(painter);
  // A quarter of the pixels: what was slow once, as a first frame is, need not stay so
  painter.cost = 4 * timed(() => painter.paint(true));
}

function paintFinely(painter) {
  waiting.delete(painter);
  coarse.delete(painter);
  painter.cost = timed(() => painter.paint(false));
}

function timed(act) {
  const start = performance.now();
  act();
  return performance.now() - start;
}
