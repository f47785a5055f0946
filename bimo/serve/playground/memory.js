// What the browser remembers of the page: choices, settings and presets; what was written, only as long as its tab.

const PREFIX = "bimo.";

/** What is remembered under ``name``, or ``otherwise``. */
export function recall(name, otherwise = null) {
  try {
    const found = localStorage.getItem(PREFIX + name);
    return found === null ? otherwise : JSON.parse(found);
  } catch (error) {
    if (error instanceof DOMException || error instanceof SyntaxError) return otherwise; // forbidden, or spoilt
    throw error;
  }
}

export function remember(name, value) {
  try {
    localStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch (error) {
    if (!(error instanceof DOMException)) throw error; // forbidden or full: the page works without
  }
}

/** Keep a value until the browser's tab is closed; nothing is kept of what is too large. */
export function keep(name, value) {
  try {
    sessionStorage.setItem(PREFIX + name, JSON.stringify(value));
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
  }
}

export function kept(name) {
  try {
    return JSON.parse(sessionStorage.getItem(PREFIX + name));
  } catch (error) {
    if (error instanceof DOMException || error instanceof SyntaxError) return null;
    throw error;
  }
}
