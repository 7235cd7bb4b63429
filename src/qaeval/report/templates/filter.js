(function () {
  "use strict";
  var form = document.getElementById("filter");
  if (!form) { return; }
  form.hidden = false;
  var text = form.querySelector("input[type=search]");
  var boxes = Array.prototype.slice.call(form.querySelectorAll("input[type=checkbox]"));
  var shown = document.getElementById("shown");
  var chunks = Array.prototype.map.call(document.querySelectorAll("details.chunk"), function (node) {
    return {
      node: node,
      source: node.querySelector(".source").textContent.toLowerCase() + " " + node.querySelector("summary").textContent.toLowerCase(),
      items: Array.prototype.map.call(node.querySelectorAll(".item"), function (item) {
        return { node: item, letter: item.getAttribute("data-letter"), words: item.textContent.toLowerCase() };
      })
    };
  });
  function apply() {
    var wanted = text.value.trim().toLowerCase();
    var letters = boxes.filter(function (box) { return box.checked; }).map(function (box) { return box.value; });
    var count = 0;
    chunks.forEach(function (chunk) {
      var inSource = chunk.source.indexOf(wanted) >= 0;
      var any = false;
      chunk.items.forEach(function (item) {
        var fits = letters.indexOf(item.letter) >= 0 && (inSource || item.words.indexOf(wanted) >= 0);
        item.node.hidden = !fits;
        if (fits) { any = true; count += 1; }
      });
      chunk.node.hidden = !any;
    });
    shown.textContent = count + " items shown";
  }
  form.addEventListener("input", apply);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  apply();
})();
