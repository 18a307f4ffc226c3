// Charts: each is a specification that Vega draws. Pointing at a run, here or in a table, highlights it everywhere.

const OUT = new Map(); // for each way to select runs, the runs that it leaves out
const views = [];
let hot = [];

/** Dim deselected runs, and all but those that are pointed at, in charts and tables. */
function fade() {
  const out = [...new Set([...OUT.values()].flatMap((runs) => [...runs]))];
  for (const view of views) view.signal("out", out).signal("hot", hot).runAsync();
  for (const node of document.querySelectorAll("[data-runs]")) {
    const runs = node.dataset.runs.split(" ").filter(Boolean).map(Number);
    node.classList.toggle("out", runs.length > 0 && runs.every((run) => out.includes(run)));
    node.classList.toggle("hot", runs.some((run) => hot.includes(run)));
  }
}

function highlight(runs) {
  if (String(runs) === String(hot)) return;
  hot = runs;
  fade();
}

/** The rows of a table that is stored by columns; a column of texts has its distinct texts once. */
function rowsOf(columns) {
  const values = Object.entries(columns).map(([name, column]) => [name, column.texts ? column.codes.map((i) => column.texts[i]) : column]);
  return (values[0]?.[1] ?? []).map((_, i) => Object.fromEntries(values.map(([name, column]) => [name, column[i]])));
}

/** What is known of a row: its run, and the numbers with these keys. */
function tipOf(row, tip) {
  const run = DATA.runs[row.run], split = { val: "validation", train: "training" }[row.split];
  const name = (key) => (DATA.quantities[key]?.label ?? key).replace(/^test /, split ? "" : "test ");
  const lines = tip.map((key) => [name(key), row[key] ?? run.numbers[key], key]).filter(([, value]) => finite(value));
  return [[run.label, split].filter(Boolean).join(", "), ...lines.map(([label, value, key]) => `${label} ${format(value, digitsFor([value], key))}`)].join("\n");
}

/** The upper left corner of the plot in its drawing, px. */
const corner = (view) => [view.origin()[0] + view.padding().left, view.origin()[1] + view.padding().top];

/** A chart; `comparison.rows` has the data that it names. It is drawn when it is first laid out. */
function chart(comparison, { title, spec, marks, place, tip }, caption) {
  const box = el("div", { class: "chart", role: "group", tabindex: marks ? 0 : null, "aria-label": marks ? `${title}. The arrow keys go through the values, Enter opens the run.` : title });
  const host = el("div"), ring = el("i", { class: "ring", hidden: true }); // Vega sets the role and name of its element
  box.append(host, ring);
  let view = null, chosen = null, drawn = false;
  const rows = marks ? comparison.rows[marks] : [];
  const at = (row) => {
    const [x, y] = place.map((field, i) => view.scale("xy"[i])(row[field === "at" ? view.signal("by") : field]));
    const [left, top] = corner(view);
    return { x: x + left, y: y + top, inside: y >= 0 && y <= view.height() };
  };
  const choose = (row) => {
    chosen = row;
    ring.hidden = !row || !at(row).inside;
    if (!row) return (highlight([]), hideTip());
    const { x, y } = at(row), frame = box.getBoundingClientRect();
    Object.assign(ring.style, { left: `${x}px`, top: `${y}px` });
    highlight([row.run]);
    showTip(tipOf(row, tip), frame.x + x, frame.y + y);
  };
  /** The row that is nearest to the pointer; of the line under the pointer, if there is one. */
  const nearest = (event, item) => {
    const frame = box.getBoundingClientRect(), own = item?.mark.marktype === "line" ? item.datum.run : null;
    let best = null, least = own === null ? 24 : Infinity;
    for (const row of rows) {
      const { x, y, inside } = at(row), far = Math.hypot(event.clientX - frame.x - x, event.clientY - frame.y - y);
      if (inside && far < least && (own === null || row.run === own)) [best, least] = [row, far];
    }
    return best;
  };
  const draw = async () => {
    drawn = true;
    const data = spec.data.map((entry) => (entry.name in comparison.rows ? { ...entry, values: comparison.rows[entry.name] } : entry));
    // With "ast", Vega interprets the expressions of the specification; it would else compile them to JavaScript.
    ({ view } = await vegaEmbed(host, { ...spec, data }, { mode: "vega", renderer: "svg", ast: true, actions: false, tooltip: false, defaultStyle: false }));
    views.push(view);
    view.addEventListener("pointermove", (event, item) => {
      if (marks) return choose(nearest(event, item));
      const row = item?.datum;
      if (!row?.variant) return choose(null);
      const variant = comparison.variants.find(({ label }) => label === row.variant);
      highlight("value" in row && row.value !== null ? [row.run] : variant.runs);
      const number = variant.numbers[row.key], digits = digitsFor([number.mean], row.key);
      const text = row.value !== null ? tipOf(row, [row.key]) : [row.variant, format(number.mean, digits), number.half > 0 ? `± ${format(number.half, digits)}` : ""].join(" ");
      showTip(text, event.clientX, event.clientY);
    });
    view.addEventListener("click", () => chosen && openRun(chosen.run));
    if (place[0] === "column") brush(comparison, view, box);
    fade();
  };
  box.addEventListener("pointerleave", () => choose(null));
  box.addEventListener("blur", () => choose(null));
  box.addEventListener("keydown", (event) => {
    const series = (row) => `${row.run} ${row.split}`, now = rows.indexOf(chosen);
    const along = { ArrowRight: 1, ArrowLeft: -1 }[event.key], across = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (event.key === "Escape") return choose(null);
    if (event.key === "Enter" && chosen) return openRun(chosen.run);
    if (!(along || across) || event.target !== box) return;
    event.preventDefault();
    let next = now < 0 ? 0 : now + (along ?? across);
    while (across && now >= 0 && rows[next] && series(rows[next]) === series(rows[now])) next += across;
    choose(rows[(next + rows.length) % rows.length]);
  });
  layouts.push(() => drawn || draw());
  return el("section", {}, el("h3", {}, title), el("figure", {}, box, el("figcaption", {}, caption)));
}

/** Selection of runs by dragging along an axis of the varied settings; a click without a drag clears it. */
function brush(comparison, view, box) {
  const ranges = new Map(), rows = comparison.rows.lines;
  const place = (event) => {
    const frame = box.getBoundingClientRect(), [left, top] = corner(view);
    const [x, y] = ["x", "y"].map((name, i) => view.scale(name).invert([event.clientX - frame.x - left, event.clientY - frame.y - top][i]));
    return { column: Math.round(x), off: Math.abs(view.scale("x")(Math.round(x)) - view.scale("x")(x)), y };
  };
  const select = () => {
    const outside = (row) => ranges.has(row.column) && (row.place < ranges.get(row.column)[0] - 0.02 || row.place > ranges.get(row.column)[1] + 0.02);
    OUT.set(rows, new Set(rows.filter(outside).map((row) => row.run)));
    view.data("brushes", [...ranges].map(([column, [low, high]]) => ({ column, low, high }))).runAsync();
    fade();
  };
  let start = null;
  const drag = (event) => {
    const now = Math.min(Math.max(place(event).y, 0), 1);
    Math.abs(now - start.y) > 0.01 ? ranges.set(start.column, [Math.min(start.y, now), Math.max(start.y, now)]) : ranges.delete(start.column);
    select();
  };
  box.addEventListener("pointerdown", (event) => {
    const found = place(event);
    if (found.off > 18) return;
    start = found;
    box.setPointerCapture(event.pointerId);
    drag(event);
  });
  box.addEventListener("pointermove", (event) => start && drag(event));
  for (const name of ["pointerup", "pointercancel"]) box.addEventListener(name, () => (start = null));
}

/** A button for each model, with its line and mark; it hides and shows the model in all charts and tables. */
function legend(comparison) {
  const toggle = (button, variant) => {
    const hidden = button.getAttribute("aria-pressed") === "true";
    button.setAttribute("aria-pressed", !hidden);
    hidden ? OUT.set(variant, new Set(variant.runs)) : OUT.delete(variant);
    fade();
  };
  const shown = comparison.variants.map((variant, i) => [variant, i]).filter(([variant]) => variant.runs.length);
  return el("div", { class: "legend" }, ...shown.map(([variant, i]) => el("button", {
    type: "button", "aria-pressed": true, onclick: (event) => toggle(event.currentTarget, variant), ...pointing(variant.runs),
  }, swatch(comparison, i), variant.label)));
}

/** Attributes of an element that highlights runs while it is pointed at or has the focus. */
const pointing = (runs) => ({ "data-runs": runs.join(" "), onpointerenter: () => highlight(runs), onfocusin: () => highlight(runs),
  onpointerleave: () => highlight([]), onfocusout: () => highlight([]) });

function showTip(text, x, y) {
  const tip = document.getElementById("tip");
  tip.hidden = false;
  tip.textContent = text;
  tip.style.left = `${Math.max(4, Math.min(x + 14, innerWidth - tip.offsetWidth - 4))}px`;
  tip.style.top = `${y + 18 + tip.offsetHeight > innerHeight ? y - tip.offsetHeight - 10 : y + 18}px`;
}
const hideTip = () => (document.getElementById("tip").hidden = true);
