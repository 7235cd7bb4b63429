(function () {
  "use strict";
  // a link to a heading inside a closed part of the page opens it; printing opens all
  function unfold() {
    var target = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    for (var fold = target && target.closest("details"); fold; fold = fold.parentElement.closest("details")) { fold.open = true; }
    if (target && target.closest("details.fold")) { target.scrollIntoView(); }
  }

  document.addEventListener("click", function (event) {
    var link = event.target.closest && event.target.closest('a[href^="#"]');
    if (link && link.hash === location.hash) { unfold(); }
  });
  window.addEventListener("hashchange", unfold);
  unfold();
})();

(function () {
  "use strict";
  var form = document.getElementById("weights");
  if (!form) { return; }
  form.hidden = false;
  var inputs = Array.prototype.slice.call(form.querySelectorAll("input"));
  var choices = Array.prototype.slice.call(form.querySelectorAll(".choice"));

  function mean(choice) {
    var sum = 0, total = 0;
    inputs.forEach(function (input) {
      var score = choice.getAttribute("data-" + input.name), weight = Math.max(0, Number(input.value) || 0);
      if (score !== null) { sum += weight * Number(score); total += weight; }
    });
    return total ? sum / total : 0;
  }

  function weigh() {
    var means = choices.map(function (choice) { return { name: choice.value, mean: mean(choice) }; });
    means.sort(function (a, b) { return b.mean - a.mean; });
    document.getElementById("weighed").textContent = means.map(function (choice) {
      return choice.name + " " + choice.mean.toFixed(2);
    }).join(" · ");
  }

  form.addEventListener("input", weigh);
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  weigh();
})();

(function () {
  "use strict";
  var form = document.getElementById("filter");
  if (!form) { return; }
  form.hidden = false;
  var fields = form.elements;
  var boxes = Array.prototype.slice.call(form.querySelectorAll("input[type=checkbox]"));
  var shown = document.getElementById("shown");
  var kinds = boxes.map(function (box) { return box.value; });
  function read(item) {
    return {
      node: item,
      letter: item.getAttribute("data-letter"),
      type: item.getAttribute("data-type"),
      sure: item.hasAttribute("data-sure") ? Number(item.getAttribute("data-sure")) : 2,
      unsure: item.hasAttribute("data-unsure"),
      mismatch: item.hasAttribute("data-mismatch"),
      found: item.hasAttribute("data-found"),
      words: item.textContent.toLowerCase()
    };
  }

  var chunks = Array.prototype.map.call(document.querySelectorAll("details.chunk"), function (node, index) {
    var columns = Array.prototype.map.call(node.querySelectorAll(".columns > div"), function (column) {
      return Array.prototype.map.call(column.querySelectorAll(".item"), read);
    });
    return {
      node: node,
      index: index,
      stratum: node.getAttribute("data-stratum"),
      different: node.hasAttribute("data-different"),
      source: (node.querySelector(".source").textContent + " " + node.querySelector("summary").textContent).toLowerCase(),
      columns: columns,
      items: [].concat.apply([], columns)
    };
  });
  var byId = {}, sequence = [], linked = "";
  chunks.forEach(function (chunk) { byId[chunk.node.id] = chunk; });

  // mean position of the letters on the scale, 0 for the best one; failed and ungraded come last
  function badness(items) {
    var total = items.reduce(function (sum, item) { return sum + kinds.indexOf(item.letter); }, 0);
    return items.length ? total / items.length : 0;
  }

  var orders = {
    "": function (chunk) { return chunk.index; },
    unsure: function (chunk) { return Math.min.apply(null, chunk.items.map(function (item) { return item.sure; })); },
    worst: function (chunk) { return -badness(chunk.items); },
    apart: function (chunk) {
      var columns = chunk.columns.map(badness);
      return Math.min.apply(null, columns) - Math.max.apply(null, columns);
    }
  };
  var ordered = "";
  var list = document.getElementById("chunks"), more = document.getElementById("more");
  var nothing = document.getElementById("nothing");
  var STEP = 25, limit = STEP, current = null;

  function arrange() {
    var wanted = orders[fields.order.value] ? fields.order.value : "";
    if (wanted === ordered || !chunks.length) { return; }
    ordered = wanted;
    var keyed = chunks.map(function (chunk) { return { key: orders[wanted](chunk), chunk: chunk }; });
    keyed.sort(function (a, b) { return a.key - b.key || a.chunk.index - b.chunk.index; });
    var sorted = document.createDocumentFragment();
    keyed.forEach(function (entry) { sorted.appendChild(entry.chunk.node); });
    list.appendChild(sorted);
  }

  function fits(item, chunk, wanted) {
    if (wanted.show === "different" && !chunk.different) { return false; }
    if (wanted.show === "unsure" && !item.unsure) { return false; }
    if (wanted.show === "mismatch" && !item.mismatch) { return false; }
    if (wanted.show === "found" && !item.found) { return false; }
    if (wanted.show === "failed" && item.letter !== "failed" && item.letter !== "ungraded") { return false; }
    if (wanted.type && item.type !== wanted.type) { return false; }
    if (wanted.letters.indexOf(item.letter) < 0) { return false; }
    return chunk.matches || item.words.indexOf(wanted.words) >= 0;
  }

  function apply() {
    var wanted = {
      words: fields.words.value.trim().toLowerCase(),
      show: fields.show.value,
      stratum: fields.stratum.value,
      type: fields.type.value,
      letters: boxes.filter(function (box) { return box.checked; }).map(function (box) { return box.value; })
    };
    var count = 0, fitting = 0, drawn = 0;
    sequence = [];
    chunks.forEach(function (chunk) {
      var any = false;
      chunk.matches = chunk.source.indexOf(wanted.words) >= 0;
      var here = !wanted.stratum || chunk.stratum === wanted.stratum;
      chunk.items.forEach(function (item) {
        var good = here && fits(item, chunk, wanted);
        if (item.node.hidden === good) { item.node.hidden = !good; }
        if (good) { any = true; count += 1; }
      });
      chunk.fits = any;
    });
    arrange();
    // long lists are drawn step by step, in their order
    Array.prototype.forEach.call(list.querySelectorAll("details.chunk"), function (node) {
      var chunk = byId[node.id], visible = chunk.fits && (fitting < limit || node.id === linked);
      fitting += chunk.fits ? 1 : 0;
      drawn += visible ? 1 : 0;
      if (node.hidden === visible) { node.hidden = !visible; }
      if (visible) { sequence.push(node); }
    });
    more.hidden = fitting <= drawn;
    more.textContent = "Show " + Math.min(STEP, fitting - drawn) + " more of " + (fitting - drawn) + " chunks";
    nothing.hidden = count > 0;
    shown.textContent = count + (count === 1 ? " item" : " items") + (count === 1 ? " matches" : " match");
  }

  function remember() {
    var state = new URLSearchParams();
    ["words", "show", "stratum", "type", "order"].forEach(function (name) {
      if (fields[name].value) { state.set(name, fields[name].value); }
    });
    var off = boxes.filter(function (box) { return !box.checked; }).map(function (box) { return box.value; });
    if (off.length) { state.set("without", off.join(" ")); }
    var text = state.toString();
    history.replaceState(null, "", "#items" + (text ? "?" + text : ""));
  }

  function recall() {
    var chunk = /^#chunk-/.test(location.hash) && document.getElementById(location.hash.slice(1));
    linked = chunk ? chunk.id : "";
    if (chunk) {
      chunk.open = true;
      chunk.hidden = false;
      chunk.scrollIntoView();
      return;
    }
    var match = /^#items\?(.*)$/.exec(location.hash);
    if (!match) { return; }
    var state = new URLSearchParams(match[1]);
    ["words", "show", "stratum", "type", "order"].forEach(function (name) { fields[name].value = state.get(name) || ""; });
    var off = (state.get("without") || "").split(" ");
    boxes.forEach(function (box) { box.checked = off.indexOf(box.value) < 0; });
    document.getElementById("items").scrollIntoView();
  }

  function mark(event) {
    var item = event.target.closest && event.target.closest(".item");
    if (!item) { return; }
    var parts = item.closest(".chunk").querySelectorAll(".source span");
    var support = (item.getAttribute("data-support") || "").split(" ");
    Array.prototype.forEach.call(parts, function (part, index) {
      part.classList.toggle("stands", support.indexOf(String(index)) >= 0);
    });
  }

  function reset() {
    form.reset();
    limit = STEP;
    apply();
    remember();
  }

  function goTo(step) {
    if (step > 0 && sequence.indexOf(current) === sequence.length - 1 && !more.hidden) { limit += STEP; apply(); }
    var index = Math.max(0, Math.min(sequence.length - 1, sequence.indexOf(current) + step));
    if (!sequence.length) { return; }
    if (current) { current.classList.remove("current"); }
    current = sequence[index];
    current.classList.add("current");
    current.querySelector("summary").focus();
    current.scrollIntoView({ block: "nearest" });
  }

  document.addEventListener("keydown", function (event) {
    if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) {
      if (event.key === "Escape" && event.target.blur) { event.target.blur(); }
      return;
    }
    if (event.key === "/") { event.preventDefault(); fields.words.focus(); }
    if (event.key === "j") { goTo(1); }
    if (event.key === "k") { goTo(-1); }
    if (event.key === "o") {
      if (!current) { goTo(1); }
      if (current) { current.open = !current.open; }
    }
  });
  more.addEventListener("click", function () { limit += STEP; apply(); });
  nothing.querySelector("button").addEventListener("click", reset);
  form.querySelector("button").addEventListener("click", reset);
  form.addEventListener("input", function () { limit = STEP; apply(); remember(); });
  form.addEventListener("submit", function (event) { event.preventDefault(); });
  window.addEventListener("hashchange", function () { recall(); apply(); });
  document.addEventListener("focusin", mark);
  document.addEventListener("mouseover", mark);
  recall();
  apply();
})();
