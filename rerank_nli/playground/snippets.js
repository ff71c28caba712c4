// The request as others can send it: from a shell, and with the library.

/** A command for a shell; the body stands in a here-document, so that nothing in it needs quoting. */
export function asCurl(url, body, withToken) {
  const parts = [`curl '${url.replaceAll("'", "%27")}'`, "-H 'Content-Type: application/json'", "--data-binary @- <<'JSON'"];
  if (withToken) parts.splice(1, 0, '-H "Authorization: Bearer $RERANK_NLI_TOKEN"');
  return `${parts.join(" \\\n  ")}\n${JSON.stringify(body, null, 2)}\nJSON\n`;
}

/** A program; what JSON writes for a text, Python reads as the same text. */
export function asPython({ query, documents, direction, score, threshold, keep, model }, least) {
  const passages = documents.map((text) => `    ${JSON.stringify(text)},\n`).join("");
  const named = model && model !== "mini" ? `${JSON.stringify(model)}, ` : "";
  return `from rerank_nli import NLIReranker

query = ${JSON.stringify(query)}
passages = [
${passages}]
${named && "# the name is this server's: put the model's folder or Hub id in its place\n"}reranker = NLIReranker(${named}direction="${direction}", score="${score}")
filtered = reranker.filter(query, passages, threshold=${threshold ?? "None"}, keep="${keep}")
for passage in filtered.kept:
    print(f"{passage.score:.3f}", passage.text)
print(reranker.verify(query, passages, threshold=${least}).label)
`;
}
