// Elements from plain calls, in the language of the page. Text is only ever text: nothing here reads HTML.

import { say } from "./words.js";

const SVG = "http://www.w3.org/2000/svg";

/**
 * An element. ``options``: ``t`` (key of its words), ``tLabel``, ``tTitle``, ``tPlaceholder`` (words of attributes),
 * ``on`` (listeners), ``data`` (data attributes), ``vars`` (CSS variables), and properties of the element;
 * what contains a dash, and ``role``, is an attribute.
 */
export function h(tag, options = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined || value === null) continue;
    if (name === "t" || WORDED[name]) setWords(element, name, value);
    else if (name === "on") for (const [event, listener] of Object.entries(value)) element.addEventListener(event, listener);
    else if (name === "data") Object.assign(element.dataset, value);
    else if (name === "vars") for (const [key, one] of Object.entries(value)) element.style.setProperty(key, one);
    else if (name === "class") element.className = value;
    else if (name.includes("-") || name === "role" || name === "for" || name === "list") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const WORDED = { tLabel: "aria-label", tTitle: "title", tPlaceholder: "placeholder" };

/** Give an element words that change with the language: ``value`` is a key, or [key, values]. */
export function setWords(element, name, value) {
  const [key, values] = Array.isArray(value) ? value : [value, {}];
  element.dataset[name] = JSON.stringify([key, values]);
  write(element, name, key, values);
}

function write(element, name, key, values) {
  if (name === "t") element.textContent = say(key, values);
  else element.setAttribute(WORDED[name], say(key, values));
}

/** Say everything below ``root`` again, in the language of now. */
export function sayAgain(root = document) {
  for (const name of ["t", ...Object.keys(WORDED)]) {
    const attribute = "data-" + name.replace(/[A-Z]/, (letter) => "-" + letter.toLowerCase());
    for (const element of root.querySelectorAll(`[${attribute}]`)) write(element, name, ...JSON.parse(element.dataset[name]));
  }
}

/** A line drawing of 24 by 24, by the name of its path in ``ICONS``. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", "0 0 24 24");
  svg.setAttribute("aria-hidden", "true");
  svg.classList.add("icon");
  const path = document.createElementNS(SVG, "path");
  path.setAttribute("d", ICONS[name]);
  svg.append(path);
  return svg;
}

const ICONS = {
  undo: "M9 14 4 9l5-5M4 9h10a6 6 0 0 1 0 12h-3",
  redo: "m15 14 5-5-5-5M20 9H10a6 6 0 0 0 0 12h3",
  again: "M20 11a8 8 0 1 0-2.3 6.3M20 4v7h-7",
  stop: "M7 7h10v10H7z",
  copy: "M9 9h11v11H9zM5 15H4V4h11v1",
  edit: "m4 20 1-4L16 5l3 3L8 19zM14 7l3 3",
  left: "m14 6-6 6 6 6",
  right: "m10 6 6 6-6 6",
  close: "M6 6l12 12M18 6 6 18",
  tune: "M4 7h9M17 7h3M4 17h3M11 17h9M15 4v6M9 14v6",
  code: "m8 7-5 5 5 5M16 7l5 5-5 5",
  share: "M12 15V4M8 8l4-4 4 4M5 12v8h14v-8",
  drop: "M12 3c4 5 6 8 6 11a6 6 0 0 1-12 0c0-3 2-6 6-11z",
  sun: "M12 8a4 4 0 1 0 0 8 4 4 0 0 0 0-8zM12 2v2M12 20v2M2 12h2M20 12h2M5 5l1.4 1.4M17.6 17.6 19 19M5 19l1.4-1.4M17.6 6.4 19 5",
  moon: "M20 14.5A8.5 8.5 0 0 1 9.5 4 8.5 8.5 0 1 0 20 14.5z",
  keys: "M3 7h18v11H3zM7 11h.01M11 11h.01M15 11h.01M8 15h8",
  save: "M12 4v11M8 11l4 4 4-4M5 16v4h14v-4",
  open: "M12 15V4M8 8l4-4 4 4M5 16v4h14v-4",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h10l1-13",
  new: "M12 5v14M5 12h14",
};

/** A button with a drawing, whose name is read aloud and shown on hovering. */
export function iconButton(name, key, click, options = {}) {
  return h("button", { type: "button", class: "icon-button", tLabel: key, tTitle: key, ...options, on: { click } }, icon(name));
}

/** A small announcement, shown and read aloud for a moment. */
export function announce(key, values = {}) {
  const place = document.getElementById("announcements");
  place.textContent = say(key, values);
  place.classList.add("shown");
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => place.classList.remove("shown"), 3500);
}

/** Copy a text; whether that went well is told and returned. */
export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch (error) {
    if (!(error instanceof DOMException || error instanceof TypeError)) throw error;
    announce("not_copied"); // the browser does not allow it, or not on this address
    return false;
  }
  announce("copied");
  return true;
}

/** Run ``work`` once at the next picture, however often it is asked for. */
export function eachFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      work();
    });
  };
}
