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
  const painter = { cost: 0, paint };
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
  for (const painter of painters) {
    if (isSlow) {
      coarse.add(painter);
      painter.paint(true);
    } else {
      paintFinely(painter);
    }
  }
  if (isSlow) {
    clearTimeout(rest);
    rest = setTimeout(() => [...coarse].forEach(paintFinely), REST);
  }
}

function paintFinely(painter) {
  waiting.delete(painter);
  coarse.delete(painter);
  const start = performance.now();
  painter.paint(false);
  painter.cost = performance.now() - start;
}
