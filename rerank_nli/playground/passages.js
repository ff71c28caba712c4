// Passages from what is typed and from files; a file that cannot be read ends in one error that says where and why.

export class Problem extends Error {}

const FORMS = { ".txt": null, ".jsonl": fromJsonLines, ".csv": fromCsv };

/** Passages of a plain text: its lines, or its paragraphs. */
export function fromText(text, split) {
  const parts = text.replace(/\r\n?/g, "\n").split(split === "block" ? /\n[^\S\n]*\n/ : "\n");
  return parts.map((part) => part.trim()).filter(Boolean);
}

/** A file as what makes its passages once it is known where a new one begins. */
export async function readFile(file) {
  const suffix = file.name.slice(file.name.lastIndexOf(".")).toLowerCase();
  if (!(suffix in FORMS)) throw new Problem(`${file.name}: expected a file that ends in ${Object.keys(FORMS).join(", ")}`);
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Problem(`${file.name} is no text in UTF-8: save it in that encoding`);
  }
  const form = FORMS[suffix];
  const rows = form && form(file.name, text);
  return (split) => rows ?? fromText(text, split);
}

function fromJsonLines(name, text) {
  const passages = [];
  for (const [at, line] of text.split("\n").entries()) {
    if (!line.trim()) continue;
    let row;
    try {
      row = JSON.parse(line);
    } catch {
      throw new Problem(`${name}, line ${at + 1}: no JSON`);
    }
    const passage = typeof row === "string" ? row : row?.text;
    if (typeof passage !== "string") throw new Problem(`${name}, line ${at + 1}: expected a text, or an object with "text"`);
    passages.push(passage);
  }
  return passages;
}

function fromCsv(name, text) {
  const [header = [], ...rows] = csvRows(name, text);
  const column = header.indexOf("text");
  if (column < 0) throw new Problem(`${name}: expected a column called “text”, found ${header.map((cell) => `“${cell}”`).join(", ") || "none"}`);
  return rows.map((row, at) => {
    if (row.length !== header.length) throw new Problem(`${name}, row ${at + 2}: ${row.length} cells, but the header names ${header.length}`);
    return row[column];
  });
}

/** Rows of cells; a quoted cell may hold commas, line breaks, and quotes that are doubled. */
function csvRows(name, text) {
  const cell = /(?:"((?:[^"]|"")*)"|([^",\r\n]*))(,|\r\n|\r|\n|$)/y;
  const rows = [];
  let row = [];
  while (cell.lastIndex < text.length || row.length) {
    const found = cell.exec(text);
    if (!found) throw new Problem(`${name}, row ${rows.length + 1}: a quote that is not closed or not doubled`);
    row.push(found[1]?.replaceAll('""', '"') ?? found[2]);
    if (found[3] === ",") continue;
    if (row.length > 1 || row[0] !== "") rows.push(row);
    row = [];
  }
  return rows;
}
