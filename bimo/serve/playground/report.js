// The run's own page, where the server has one: its report card, in a frame that may do nothing but show it.

import { h } from "./dom.js";

export class Report {
  name = "report";

  constructor() {
    this.frame = h("iframe", { class: "report-frame", tTitle: "view_report", referrerPolicy: "no-referrer" });
    this.frame.setAttribute("sandbox", "allow-scripts allow-popups");
    this.link = h("a", { class: "quiet", target: "_blank", rel: "noopener", t: "open_report" });
    this.element = h("div", { class: "report" }, h("p", { class: "bar" }, h("span", { class: "space" }), this.link), this.frame);
  }

  /** The address of the report; loaded when it is looked at. */
  set address(address) {
    this.link.href = this.found = address;
  }

  focus() {
    if (this.frame.getAttribute("src") !== this.found) this.frame.src = this.found;
  }

  sayAgain() {}
}
