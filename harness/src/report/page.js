// Steps through the counterexamples: selection, search, and the panel beside the story. Data goes into the page as text alone.
(() => {
  "use strict";
  const data = document.getElementById("narratives");
  const narratives = data ? JSON.parse(data.textContent) : [];
  const examples = [...document.querySelectorAll(".example")].map((element, at) => ({
    element,
    narrative: narratives[at],
    rows: [...element.querySelectorAll("tr.step")],
    panel: element.querySelector(".panel"),
    selected: -1,
  }));
  if (examples.length === 0) return;
  const search = document.getElementById("search");
  const found = document.querySelector(".tools output");
  const help = document.getElementById("help");
  let current = 0;

  const make = (parent, name, text, className) => {
    const element = document.createElement(name);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    parent.append(element);
    return element;
  };

  const lines = (content) => content.split("\n");

  // Which lines came and which went: the longest common subsequence stays.
  const compare = (before, after) => {
    const common = Array.from({ length: before.length + 1 }, () => new Array(after.length + 1).fill(0));
    for (let i = before.length - 1; i >= 0; i--) {
      for (let j = after.length - 1; j >= 0; j--) {
        common[i][j] = before[i] === after[j] ? common[i + 1][j + 1] + 1 : Math.max(common[i + 1][j], common[i][j + 1]);
      }
    }
    const told = [];
    let [i, j] = [0, 0];
    while (i < before.length || j < after.length) {
      if (i < before.length && j < after.length && before[i] === after[j]) {
        told.push(["", after[j]]);
        i++, j++;
      } else if (i < before.length && (j === after.length || common[i + 1][j] >= common[i][j + 1])) {
        told.push(["gone", before[i++]]);
      } else {
        told.push(["added", after[j++]]);
      }
    }
    return told;
  };

  const showContent = (panel, narrative, step) => {
    make(panel, "h4", "The data file");
    const changes = narrative.steps.filter((one) => one.content !== null && one.number <= step.number);
    const last = changes.pop();
    if (!last) {
      make(panel, "p", "not changed so far", "soft");
      return;
    }
    const isNow = last.number === step.number;
    make(panel, "p", isNow ? "changed by this call" : `unchanged since call ${last.number}`, "soft");
    const before = changes.pop();
    const told = isNow && before ? compare(lines(before.content), lines(last.content)) : lines(last.content).map((line) => ["", line]);
    const block = make(panel, "pre");
    for (const [how, line] of told) make(block, "span", line === "" ? " " : line, how);
  };

  const showLocks = (panel, narrative, step) => {
    const traceOf = (number) => narrative.steps.find((one) => one.number === number)?.trace;
    const held = narrative.holds.filter((hold) => hold.from <= step.number && (hold.to === null || hold.to > step.number) && traceOf(hold.from) === step.trace);
    if (narrative.holds.length === 0) return;
    make(panel, "h4", "Locks");
    if (held.length === 0) make(panel, "p", "nobody holds one", "soft");
    for (const hold of held) {
      const client = narrative.lanes[hold.lane]?.client;
      make(panel, "p", `client ${client}: ${hold.mode} ${hold.kind} on ${hold.file}, since call ${hold.from}`);
    }
  };

  const show = ({ narrative, panel, rows, selected }) => {
    panel.replaceChildren();
    panel.hidden = selected < 0;
    const step = narrative.steps[selected];
    if (!step) return;
    make(panel, "h4", `Call ${step.number} of ${narrative.steps.length}`);
    make(panel, "p", narrative.lanes[step.lane]?.label, "soft");
    const call = make(panel, "p");
    make(call, "code", step.call);
    if (step.result !== "") make(call, "span", `${step.result === "never returned" ? " " : " =\u00a0"}${step.result}`, "result");
    const data = rows[selected].querySelector(".data");
    if (data) make(panel, "p", data.textContent);
    for (const lock of step.locks) make(panel, "p", lock);
    if (step.why) make(panel, "p", step.why, "soft");
    if (step.ending) make(panel, "p", step.ending.text);
    if (step.number === narrative.point_of_no_return) make(panel, "p", "point of no return: from here on it can only go wrong");
    if (step.number === narrative.nearest?.step) make(panel, "p", `it would go well here: ${narrative.nearest.told}`);
    showContent(panel, narrative, step);
    showLocks(panel, narrative, step);
  };

  // What `select` opens itself is no wish of the reader to be there.
  const open = (element) => {
    if (!element.open) element.open = true;
  };

  const select = (at, place, isMoved = true) => {
    const left = examples[current];
    left.rows[left.selected]?.removeAttribute("aria-current");
    current = at;
    const example = examples[at];
    example.selected = Math.max(-1, Math.min(place, example.rows.length - 1));
    open(example.element);
    const row = example.rows[example.selected];
    if (row) {
      row.setAttribute("aria-current", "step");
      row.tabIndex = -1;
      if (isMoved) {
        if (document.activeElement !== search) row.focus({ preventScroll: true });
        row.scrollIntoView({ block: "nearest" });
        history.replaceState(null, "", `#${row.id}`);
      }
    } else if (isMoved) {
      example.element.scrollIntoView();
      example.element.querySelector("summary").focus({ preventScroll: true });
    }
    show(example);
  };

  const isWanted = (row) => search.value.trim() === "" || row.classList.contains("match");

  const step = (by) => {
    const { rows, selected } = examples[current];
    for (let place = selected + by; place >= 0 && place < rows.length; place += by) {
      if (isWanted(rows[place])) return select(current, place);
    }
  };

  const turn = (by) => {
    const at = current + by;
    if (at < 0 || at >= examples.length) return;
    select(at, Math.max(0, examples[at].selected), false);
    examples[at].element.scrollIntoView();
    examples[at].element.querySelector("summary").focus({ preventScroll: true });
    history.replaceState(null, "", `#${examples[at].element.id}`);
  };

  const filter = () => {
    const words = search.value.trim().toLowerCase();
    let [count, places] = [0, 0];
    for (const { element, rows } of examples) {
      element.classList.toggle("searching", words !== "");
      let here = 0;
      for (const row of rows) {
        const isMatch = words !== "" && row.textContent.toLowerCase().includes(words);
        row.classList.toggle("match", isMatch);
        here += isMatch;
      }
      count += here;
      places += here > 0;
    }
    found.textContent = words === "" ? "" : count === 0 ? "no call matches" : `${count} calls match, in ${places} of ${examples.length} counterexamples`;
  };

  const clear = () => {
    search.value = "";
    filter();
    search.blur();
    const { rows, selected } = examples[current];
    rows[selected]?.focus({ preventScroll: true });
  };

  const keys = {
    j: () => step(1), ArrowDown: () => step(1),
    k: () => step(-1), ArrowUp: () => step(-1),
    n: () => turn(1), p: () => turn(-1),
    "/": () => { search.focus(); search.select(); },
    "?": () => help.showModal(),
    Escape: clear,
  };

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey || help.open) return;
    const isTyping = event.target === search;
    if (isTyping && !["Escape", "ArrowDown", "ArrowUp", "Enter"].includes(event.key)) return;
    const act = isTyping && event.key === "Enter" ? keys.j : Object.hasOwn(keys, event.key) && keys[event.key];
    if (!act) return;
    event.preventDefault();
    act();
  });
  search.form.addEventListener("submit", (event) => event.preventDefault());
  search.addEventListener("input", filter);
  examples.forEach((example, at) => {
    example.rows.forEach((row, place) => row.addEventListener("click", () => {
      if (getSelection().isCollapsed) select(at, place);
    }));
    example.element.addEventListener("toggle", () => {
      if (example.element.open && example.selected < 0) select(at, 0, false);
    });
  });
  addEventListener("beforeprint", () => examples.forEach(({ element }) => open(element)));

  const follow = () => {
    const id = location.hash.slice(1);
    examples.forEach(({ element, rows }, at) => {
      const place = rows.findIndex((row) => row.id === id);
      if (place >= 0) select(at, place);
      else if (element.id === id) turn(at - current);
    });
  };
  addEventListener("hashchange", follow);

  document.documentElement.classList.add("scripted");
  document.querySelector(".tools").hidden = false;
  select(0, 0, false);
  follow();
})();
