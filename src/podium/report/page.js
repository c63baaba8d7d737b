// A click on a heading sorts the table by that column: numbers by value, other cells as text. A second click reverses it.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const isText = heading.classList.contains("text");
    const order = heading.getAttribute("aria-sort");
    const isDescending = order ? order === "ascending" : !isText;
    const valueOf = (row) => {
      const cell = row.cells[column];
      if (isText) return cell.textContent.trim();
      const value = parseFloat(cell.dataset.value ?? cell.textContent);
      return Number.isNaN(value) ? -Infinity : value;
    };
    const compare = (first, second) => isText
      ? valueOf(first).localeCompare(valueOf(second), undefined, { numeric: true })
      : valueOf(first) - valueOf(second);
    const rows = [...table.tBodies[0].rows].sort((first, second) => (isDescending ? -1 : 1) * compare(first, second));
    table.tBodies[0].append(...rows);
    for (const other of headings) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", isDescending ? "descending" : "ascending");
  }));
}
// A click on an image, or Enter on it, shows its card enlarged; arrow keys show the cards beside it, Escape closes.
const dialog = document.querySelector("dialog");
let shown;
const enlarge = (card) => {
  if (!card) return;
  shown = card;
  const copy = card.cloneNode(true);
  for (const details of copy.querySelectorAll("details")) details.open = true;
  for (const button of copy.querySelectorAll("button")) button.disabled = true;
  dialog.querySelector(".gallery").className = card.parentElement.className;
  dialog.querySelector(".gallery").replaceChildren(copy);
  if (!dialog.open) dialog.showModal();
};
for (const button of document.querySelectorAll(".zoom")) button.addEventListener("click", () => enlarge(button.closest("li")));
dialog.addEventListener("keydown", ({ key }) => {
  if (key === "ArrowRight") enlarge(shown.nextElementSibling);
  if (key === "ArrowLeft") enlarge(shown.previousElementSibling);
});
dialog.addEventListener("click", ({ target }) => {
  if (target === dialog) dialog.close();
  const button = target.closest("form button");
  if (button?.value === "next") enlarge(shown.nextElementSibling);
  if (button?.value === "previous") enlarge(shown.previousElementSibling);
});
// A browser does not print the content of closed details, so open them.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
