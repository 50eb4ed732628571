const STEP = 500;  // cards in the page at first: each press of the button below doubles them
const get = id => document.getElementById(id);
const main = document.querySelector("main"), cards = Array.from(document.querySelectorAll("main > article"));
const box = get("search"), found = get("found"), order = get("order"), direction = get("direction"), more = get("more");
const statuses = Array.from(document.querySelectorAll(".choice"));
const filters = Array.from(document.querySelectorAll("select.value"));
const collator = new Intl.Collator("en", { numeric: true });
let texts = null, keys = null, chosen = [], limit = STEP, falls = false, timer = 0;

// The values of a row, in the order of the columns; null where it has none.
function keysOf(n) {
  keys ??= cards.map(card => JSON.parse(card.dataset.keys ?? "[]"));
  return keys[n];
}

// Numbers come before texts, and rows without a value last in both directions.
function compare(column, one, other) {
  const a = keysOf(one)[column] ?? null, b = keysOf(other)[column] ?? null;
  if (a === null || b === null) return (a === null) - (b === null) || one - other;
  let sign = (typeof a === "string") - (typeof b === "string");
  sign ||= typeof a === "string" ? collator.compare(a, b) : (a > b) - (a < b);
  return (falls ? -sign : sign) || one - other;
}

function choose() {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (words.length) texts ??= cards.map(card => card.textContent.toLowerCase());
  const status = statuses.find(input => input.checked)?.id ?? "all";
  const wanted = filters.filter(select => select.value)
    .map(select => [Number(select.dataset.column), JSON.parse(select.value)]);
  chosen = [];
  cards.forEach((card, n) => {
    if ((status === "all" || card.className === status) && words.every(word => texts[n].includes(word)) &&
        wanted.every(([column, value]) => keysOf(n)[column] === value)) chosen.push(n);
  });
  const column = order.value;
  if (column !== "") chosen.sort((one, other) => compare(Number(column), one, other));
  else if (falls) chosen.reverse();
  direction.textContent = falls ? "↓ descending" : "↑ ascending";
  const isPart = words.length || wanted.length;
  found.textContent = isPart ? `${chosen.length.toLocaleString("en")} found` : "";
  limit = STEP;
  show();
}

// Puts the first of the chosen cards into the page; the browser need not lay out all others.
function show() {
  const shown = chosen.slice(0, limit).map(n => cards[n]);
  if (shown.length !== main.children.length || shown.some((card, n) => card !== main.children[n])) {
    const part = document.createDocumentFragment();
    part.append(...shown);
    main.replaceChildren(part);
  }
  for (const card of shown) {
    if (card.dataset.seen) continue;
    card.dataset.seen = "yes";
    for (const value of card.querySelectorAll("[data-column]")) {
      if (!filterOf(value)) continue;
      value.classList.add("picks");
      value.title = "show only rows with this value";
    }
  }
  const left = chosen.length - shown.length;
  more.hidden = left === 0;
  more.textContent = `show ${Math.min(left, limit).toLocaleString("en")} more of ${left.toLocaleString("en")}`;
}

function filterOf(value) { return filters.find(select => select.dataset.column === value.dataset.column); }

function later() { clearTimeout(timer); timer = setTimeout(choose, 120); }

box.addEventListener("input", later);
for (const input of [...statuses, ...filters]) input.addEventListener("change", choose);
order.addEventListener("change", () => {
  falls = order.selectedOptions[0].hasAttribute("data-falls");
  choose();
});
direction.addEventListener("click", () => { falls = !falls; choose(); });
more.addEventListener("click", () => { limit *= 2; show(); });
get("clear").addEventListener("click", () => {
  box.value = "";
  for (const select of filters) select.value = "";
  statuses[0].checked = true;
  choose();
});
// A click on a value shows only its rows, and another all again; the menus above do the same by keyboard.
main.addEventListener("click", event => {
  const value = event.target.closest("[data-column]"), select = value && filterOf(value);
  if (!select || !getSelection().isCollapsed) return;
  const key = keysOf(cards.indexOf(value.closest("article")))[Number(value.dataset.column)];
  const option = Array.from(select.options).find(each => each.value && JSON.parse(each.value) === key);
  if (!option) return;
  select.value = select.value === option.value ? "" : option.value;
  choose();
});
// Everything that was chosen is printed, as without this script.
addEventListener("beforeprint", () => { limit = Infinity; show(); });
box.hidden = false;
get("tools").hidden = cards.length === 0;
falls = order.selectedOptions[0].hasAttribute("data-falls");
choose();
addEventListener("pageshow", choose);  // browsers restore what was chosen before a reload
