// What the browser remembers of the page: choices, settings and presets; nothing that was written.

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

export function forget(name) {
  try {
    localStorage.removeItem(PREFIX + name);
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
  }
}
