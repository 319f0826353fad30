// Sorting: a click on a column's head; figures carry their value in data-order.
for (const table of document.querySelectorAll("table.sortable")) {
  table.tHead.addEventListener("click", (event) => {
    const head = event.target.closest("th");
    if (!head) return;
    const column = head.cellIndex;
    const descending = head.getAttribute("aria-sort") === "ascending";
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", descending ? "descending" : "ascending");
    const value = (row) => row.cells[column].dataset.order ?? row.cells[column].textContent.trim();
    const compare = (a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === "" || y === "") return x === y ? 0 : x === "" ? 1 : -1;
      const result = Number.isNaN(Number(x)) || Number.isNaN(Number(y)) ? x.localeCompare(y) : x - y;
      return descending ? -result : result;
    };
    const body = table.tBodies[0];
    body.append(...[...body.rows].sort(compare));
  });
}

// Charts: their inks are the page's, which change with light, dark and print.
const specs = JSON.parse(document.getElementById("specs").textContent);
const [ink, line] = ["var(--ink)", "var(--line)"];
const axis = { labelColor: ink, titleColor: ink, gridColor: line, domainColor: line, tickColor: line, labelFontSize: 11 };
const config = { background: "transparent", axis, legend: { labelColor: ink, titleColor: ink }, view: { stroke: line } };
for (const [id, spec] of Object.entries(specs)) {
  await window.vegaEmbed(document.getElementById(id), spec, { actions: false, renderer: "svg", config });
  document.getElementById(id).dataset.drawn = "yes";
}

// Items: unpacked here, so that thousands of questions fit into the page.
const get = (id) => document.getElementById(id);
async function unpack() {
  const bytes = Uint8Array.from(atob(get("packed").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}
function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}
const STEP = 20;
const data = await unpack();
for (const [i, task] of data.tasks.entries()) get("task").append(new Option(task.name, i));
for (const model of new Set(data.points.map((point) => point.model))) get("model").append(new Option(model, model));
let shown = STEP;

function flipped(task, place, members) {
  const reference = members.find(([point]) => point.reference);
  if (!reference) return [];
  const base = task.marks[reference[1]][place];
  if (base === undefined || "?.".includes(base)) return [];
  return members.filter(([, i]) => {
    const mark = task.marks[i][place];
    return mark !== undefined && !"?.".includes(mark) && mark !== base;
  }).map(([, i]) => i);
}
function card(task, place, members, flips) {
  const [id, question, choices, golds] = task.items[place];
  const box = element("article");
  box.append(element("small", `${id}: ${flips.length} of ${members.length - 1} levels differ from the reference`));
  if (question !== "") box.append(element("p", question ?? "(text left out)"));
  const list = element("ol");
  for (const [i, choice] of choices.entries()) list.append(element("li", choice, golds.includes(i) ? "gold" : ""));
  box.append(list);
  const answers = element("div", undefined, "answers");
  for (const [point, i] of members) {
    const mark = task.marks[i][place] ?? ".";
    const word = { 1: "right", 0: "wrong", "-": "in part", "?": "unscored", ".": "not asked" }[mark];
    const said = task.texts[i]?.[place] || (task.picks[i][place] === "." ? "" : task.picks[i][place]) || "";
    const kind = mark === "1" ? "right" : mark === "0" ? "wrong" : "";
    const text = `${point.label}${point.reference ? " (reference)" : ""}: ${said} ${word}`;
    answers.append(element("span", text, `answer ${kind} ${flips.includes(i) ? "flip" : ""}`));
  }
  box.append(answers);
  return box;
}
function show() {
  const task = data.tasks[get("task").value];
  get("list").replaceChildren();
  if (!task) return;
  const members = data.points.map((point, i) => [point, i]).filter(([point]) => point.model === get("model").value);
  const wanted = get("find").value.toLowerCase();
  const found = [];
  for (const place of task.items.keys()) {
    const flips = flipped(task, place, members);
    const fits = !wanted || task.items[place].slice(0, 3).flat().join(" ").toLowerCase().includes(wanted);
    if (fits && (flips.length || get("which").value === "all")) found.push([place, flips]);
  }
  found.sort((a, b) => b[1].length - a[1].length);
  get("list").append(...found.slice(0, shown).map(([place, flips]) => card(task, place, members, flips)));
  get("count").textContent = `${Math.min(shown, found.length)} of ${found.length} items shown, ${task.items.length} asked`;
  get("more").hidden = found.length <= shown;
}
for (const id of ["task", "model", "which", "find"]) {
  get(id).addEventListener("input", () => { shown = STEP; show(); });
}
get("more").addEventListener("click", () => { shown += STEP; show(); });
show();
document.documentElement.dataset.ready = "yes";
