// Dark unless somebody chose otherwise: reading rooms are dark. The choice is all that is remembered.

const KEY = "mammoseq-theme";

export function applyTheme() {
  document.documentElement.dataset.theme = chosen() ?? "dark";
}

/** Turn dark to light or back; answers what it is now. */
export function turnTheme() {
  const now = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  document.documentElement.dataset.theme = now;
  try {
    localStorage.setItem(KEY, now);
  } catch {
    // a browser that remembers nothing: fine
  }
  return now;
}

function chosen() {
  try {
    return localStorage.getItem(KEY);
  } catch {
    return null;
  }
}
