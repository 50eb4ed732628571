const box = document.getElementById("search"), found = document.getElementById("found");
const cards = Array.from(document.querySelectorAll("main > article"));
let texts = null, timer = 0;
function search() {
  texts ??= cards.map(card => card.textContent.toLowerCase());
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  let count = 0;
  cards.forEach((card, n) => {
    card.hidden = !words.every(word => texts[n].includes(word));
    count += !card.hidden;
  });
  found.textContent = words.length ? `${count.toLocaleString("en")} with these words` : "";
}
box.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(search, 120); });
box.hidden = false;
