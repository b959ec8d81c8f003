// Whoever uses the keyboard alone can scroll what is wider than the page.
addEventListener("load", () => {
  for (const part of document.querySelectorAll("pre, .cell_output, .table-wrapper, mjx-container")) {
    if (part.scrollWidth > part.clientWidth) part.tabIndex = 0;
  }
});
