// Sorts a table by the column whose name is pressed: numbers by value, everything else as text; a second press turns it.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  headings.forEach((heading, column) => heading.querySelector("button").addEventListener("click", () => {
    const isText = heading.classList.contains("text");
    const now = heading.getAttribute("aria-sort");
    const turned = now ? now === "ascending" : !isText;
    const valueOf = (row) => {
      const cell = row.cells[column];
      if (isText) return cell.textContent.trim();
      const value = parseFloat(cell.dataset.value ?? cell.textContent);
      return Number.isNaN(value) ? -Infinity : value;
    };
    const compare = (one, other) => isText
      ? valueOf(one).localeCompare(valueOf(other), undefined, { numeric: true })
      : valueOf(one) - valueOf(other);
    const rows = [...table.tBodies[0].rows].sort((one, other) => (turned ? -1 : 1) * compare(one, other));
    table.tBodies[0].append(...rows);
    for (const one of headings) one.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", turned ? "descending" : "ascending");
  }));
}
// What is closed is not printed.
addEventListener("beforeprint", () => {
  for (const one of document.querySelectorAll("details")) one.open = true;
});
