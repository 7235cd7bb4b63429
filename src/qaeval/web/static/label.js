"use strict";
// Shows one item at a time. Texts of items reach the page through textContent alone.
(function () {
  const $ = (id) => document.getElementById(id);
  const texts = JSON.parse(document.body.dataset.texts);
  let letters = []; // buttons
  let flags = [];
  const DOUBLE_MS = 150; // a second click of a double click does not label the next item

  let item = null; // the item on the screen; null at the end
  let busy = true; // a request is on its way
  let source = null; // the source on the screen, to tell whether the next one is new
  let since = 0; // when the item was last seen; a hidden window does not count
  let seen = 0; // milliseconds before that

  const now = () => performance.now();
  const elapsed = () => seen + (document.hidden ? 0 : now() - since);
  const fill = (text, values) => text.replace(/\{(\w+)\}/g, (_, name) => values[name]);

  // ------------------------------------------------------------ drafts: a reload keeps note, flags and time

  function draft() {
    return { flags: raised(), note: $("note").value, seen: elapsed() };
  }
  function keep() {
    if (item) { sessionStorage.setItem(`draft-${item.assignment}`, JSON.stringify(draft())); }
  }
  function recalled() {
    try { return JSON.parse(sessionStorage.getItem(`draft-${item.assignment}`)) || {}; } catch { return {}; }
  }
  const raised = () => flags.filter((button) => button.getAttribute("aria-pressed") === "true").map((button) => button.dataset.flag);
  function raise(names) {
    flags.forEach((button) => button.setAttribute("aria-pressed", String(names.includes(button.dataset.flag))));
  }

  // ------------------------------------------------------------ requests

  async function ask(path, body) {
    if (busy && body) { return; }
    busy = true;
    letters.forEach((button) => { button.disabled = true; });
    try {
      const options = body ? { method: "POST", body: JSON.stringify(body), headers: { "Content-Type": "application/json" } } : {};
      const response = await fetch(path, options);
      if (response.status === 403 || response.status === 421) { throw new Error(texts.refused); }
      const answer = await response.json().catch(() => ({ error: response.statusText })); // a crash has no JSON
      if (!response.ok) { throw new Error(fill(texts.not_stored, { reason: answer.error })); }
      complain("");
      show(answer);
    } catch (error) {
      complain(error instanceof TypeError ? texts.offline : error.message);
    } finally {
      setTimeout(() => {
        busy = false;
        letters.forEach((button) => { button.disabled = false; });
        if (item) { document.body.dataset.ready = item.assignment; }
      }, DOUBLE_MS);
    }
  }
  function complain(text) {
    $("error").textContent = text;
    $("error").hidden = !text;
  }

  // ------------------------------------------------------------ the page

  function show(answer) {
    delete document.body.dataset.ready;
    $("bar").value = answer.progress.share;
    $("progress").textContent = answer.progress.text;
    $("status").textContent = answer.message;
    const before = item;
    item = answer.item;
    $("work").hidden = !item;
    $("end").hidden = Boolean(item);
    if (source === null) { $("rubric").open = answer.progress.share === 0; } // before the first label it is read
    if (item) { showItem(before); } else { showEnd(); }
  }

  function showItem(before) {
    const stored = recalled();
    if (!before || before.rubric !== item.rubric) { showScale(); }
    seen = stored.seen || 0;
    since = now();
    const text = item.source.join("");
    if (text !== source) {
      $("source").replaceChildren(...item.source.map((part) => element("span", part)));
      $("source").scrollTop = 0;
    }
    $("source-name").textContent = item.title;
    $("source-name").hidden = !item.title;
    $("source-state").textContent = source === null ? "" : text === source ? texts.same_source : texts.new_source;
    if (!text) { $("source").textContent = texts.no_source; }
    source = text;
    $("question").textContent = item.question;
    $("answer").textContent = item.answer;
    $("rejected").textContent = item.rejected;
    $("pair").hidden = !item.rejected;
    $("question-title").textContent = item.rejected ? texts.prompt : texts.question;
    $("answer-title").textContent = item.rejected ? texts.chosen : texts.answer;
    $("opinions").hidden = !item.opinions.length;
    $("opinions").querySelector("ul").replaceChildren(...item.opinions.map((opinion) => element("li", opinion)));
    $("note").value = stored.note || "";
    raise(stored.flags || []);
    mark(false);
    if (before === null || before.assignment !== item.assignment) {
      $("item").scrollTop = 0;
      window.scrollTo(0, 0);
      $("item").focus({ preventScroll: true });
    }
  }

  function showScale() {
    const last = Math.max(1, item.scale.length - 1);  // spread over the palette, as in the report
    letters = item.scale.map((level, index) => {
      const button = action(`letter letter-${Math.round((index * 4) / last)}`, () => record(level.letter), element("kbd", level.letter), " ", element("span", level.name));
      button.title = level.meaning;
      button.dataset.letter = level.letter;
      button.disabled = busy;
      return button;
    });
    flags = item.flags.map((flag, index) => {
      const button = action("flag-button", () => flip(button), `⚑ ${flag.name.replaceAll("_", " ")} `, element("kbd", index ? index + 1 : "H"));
      button.title = flag.meaning;
      button.dataset.flag = flag.name;
      return button;
    });
    $("letters").replaceChildren(...letters);
    $("flags").replaceChildren(...flags);
    $("help-letters").replaceChildren(...item.scale.flatMap((level) => [element("kbd", level.letter), " "]));
    $("rubric-text").textContent = item.rubric;
  }

  function action(className, act, ...content) {
    const button = element("button", "", className);
    button.type = "button";
    button.append(...content);
    button.addEventListener("click", act);
    return button;
  }

  async function showEnd() {
    source = null;
    $("end").replaceChildren(element("p", texts.counting));
    $("end").focus();
    try {
      const response = await fetch("summary"); // beside the page, wherever that is
      const answer = await response.json().catch(() => ({ error: response.statusText }));
      if (item) { return; } // taken back meanwhile
      if (answer.error) { throw new Error(answer.error); }
      const parts = answer.sections.map((section) => {
        const box = element("section", "", "summary");
        box.append(element("h2", section.title), ...section.lines.map((line) => element("p", line)));
        return box;
      });
      $("end").replaceChildren(...parts, undoAtEnd);
      document.body.dataset.ready = "end";
    } catch (error) {
      $("end").replaceChildren(undoAtEnd);
      complain(error instanceof TypeError ? texts.offline : error.message);
    }
  }

  function element(name, text, className) {
    const node = document.createElement(name);
    node.textContent = text;
    if (className) { node.className = className; }
    return node;
  }

  function mark(on) {
    $("mark").setAttribute("aria-pressed", String(on));
    const parts = $("source").children;
    Array.from(parts).forEach((part, index) => part.classList.toggle("stands", on && item.support.includes(index)));
    $("no-support").hidden = !(on && item.source.length && !item.support.length);
    if (on && item.support.length) { parts[item.support[0]].scrollIntoView({ block: "nearest" }); }
  }

  // ------------------------------------------------------------ what a rater does

  const record = (letter) => {
    keep();
    return ask("record", { assignment: item.assignment, letter, flags: raised(), note: $("note").value, seconds: elapsed() / 1000 });
  };
  const skip = (reason) => {
    $("reasons").close();
    keep();
    return ask("skip", { assignment: item.assignment, reason, note: $("note").value, seconds: elapsed() / 1000 });
  };
  const undo = () => {
    keep();
    return ask("undo", { assignment: item ? item.assignment : null });
  };
  const flip = (flag) => {
    if (flag) { flag.setAttribute("aria-pressed", String(flag.getAttribute("aria-pressed") !== "true")); keep(); }
  };
  const toggleMark = () => mark($("mark").getAttribute("aria-pressed") !== "true");
  const toggleHelp = () => ($("help").open ? $("help").close() : $("help").showModal());

  const undoAtEnd = action("", undo, ...Array.from($("undo").cloneNode(true).childNodes));
  document.querySelectorAll("[data-reason]").forEach((button) => button.addEventListener("click", () => skip(button.dataset.reason)));
  document.querySelectorAll("dialog .close").forEach((button) => button.addEventListener("click", () => button.closest("dialog").close()));
  $("mark").addEventListener("click", toggleMark);
  $("skip").addEventListener("click", () => $("reasons").showModal());
  $("undo").addEventListener("click", undo);
  $("help-button").addEventListener("click", toggleHelp);
  $("note").addEventListener("input", keep);

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.repeat || event.isComposing) { return; }
    if (event.target === $("note")) {
      if (event.key === "Escape") { $("item").focus({ preventScroll: true }); event.preventDefault(); }
      return;
    }
    const key = event.key.toUpperCase();
    if (key === "?" && !$("reasons").open) { toggleHelp(); return; }
    if ($("help").open) { return; }
    if ($("reasons").open) {
      const reason = document.querySelectorAll("[data-reason]")[Number(key) - 1];
      if (reason) { reason.click(); }
      return;
    }
    if (busy) { return; }
    const act = item ? actions(key) : key === "U" ? undo : null;
    if (act) { event.preventDefault(); act(); }
  });
  function actions(key) {
    const letter = letters.find((button) => button.dataset.letter === key);
    if (letter) { return () => record(key); }
    if (/^[1-9]$/.test(key) && flags[key - 1]) { return () => flip(flags[key - 1]); }
    return {
      H: () => flip(flags[0]),
      N: () => $("note").focus(),
      S: $("skip").hidden ? null : () => $("reasons").showModal(),
      U: undo,
      M: toggleMark
    }[key];
  }

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) { seen += now() - since; } else { since = now(); }
  });
  window.addEventListener("pagehide", keep);
  ask("state");
})();
