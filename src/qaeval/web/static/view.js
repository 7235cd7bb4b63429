"use strict";

// progress of a run without a report: asked again until the report is there
const activity = document.querySelector("[data-live]");

async function ask() {
  let next = 2000;
  try {
    const answer = await fetch(location.pathname + "/state");
    if (answer.ok) {
      const state = await answer.json();
      if (state.finished) { location.reload(); return; }
      activity.textContent = state.activity;
      for (const stage of state.stages) {
        document.getElementById(stage.stage).value = stage.share;
        const bound = stage.stage === "grade" ? "at most " : "";
        document.getElementById(stage.stage + "-text").textContent =
          stage.done.toLocaleString("en") + " of " + bound + stage.total.toLocaleString("en") + " rows";
      }
    } else { next = 10000; }
  } catch {
    activity.textContent = "the server does not answer; start qaeval view again";
    next = 10000;
  }
  setTimeout(ask, next);
}

if (activity) { setTimeout(ask, 1000); }
