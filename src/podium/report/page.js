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
// A browser does not print the content of closed details, so open them.
addEventListener("beforeprint", () => {
  for (const details of document.querySelectorAll("details")) details.open = true;
});
