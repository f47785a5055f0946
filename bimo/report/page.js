(function () {
  "use strict";
  var root = document.documentElement;
  function speak(language) {
    document.getElementById("language-" + language).checked = true;
    root.lang = language === "zh" ? "zh-Hans" : "en";
  }
  var wanted = location.hash === "#zh" || location.hash === "#en" ? location.hash.slice(1) : navigator.language.slice(0, 2);
  speak(wanted === "zh" ? "zh" : "en");
  ["en", "zh"].forEach(function (language) {
    document.getElementById("language-" + language).addEventListener("change", function () { speak(language); });
  });

  var source = document.getElementById("points");
  if (!source) return;
  var points = JSON.parse(source.textContent);
  var last = points.step[points.step.length - 1];
  function shown(name, value) {
    if (value === null || value === undefined) return "–";
    if (name === "step" || name === "tokens") return Math.round(value).toLocaleString("en");
    if (name === "seconds") {
      var s = Math.round(value), h = Math.floor(s / 3600), m = Math.floor(s / 60) % 60;
      return (h ? h + ":" + String(m).padStart(2, "0") : m) + ":" + String(s % 60).padStart(2, "0");
    }
    return value.toFixed(3);
  }
  function nearest(step) {
    var best = 0;
    for (var i = 1; i < points.step.length; i++) {
      if (Math.abs(points.step[i] - step) < Math.abs(points.step[best] - step)) best = i;
    }
    return best;
  }
  document.querySelectorAll(".plot").forEach(function (plot) {
    var cursor = plot.querySelector(".cursor"), tip = plot.querySelector(".tip");
    function point(event) {
      var box = plot.getBoundingClientRect();
      var i = nearest(Math.min(1, Math.max(0, (event.clientX - box.left) / box.width)) * last);
      var x = points.step[i] / last * box.width;
      tip.querySelectorAll("[data-column]").forEach(function (cell) {
        cell.textContent = shown(cell.dataset.column, points[cell.dataset.column][i]);
      });
      cursor.hidden = tip.hidden = false;
      cursor.style.left = x + "px";
      var left = x > box.width / 2 ? x - tip.offsetWidth - 12 : x + 12;
      tip.style.left = Math.min(box.width - tip.offsetWidth, Math.max(0, left)) + "px";
    }
    plot.addEventListener("pointermove", point);
    plot.addEventListener("pointerdown", point);
    plot.addEventListener("pointerleave", function () { cursor.hidden = tip.hidden = true; });
  });
})();
