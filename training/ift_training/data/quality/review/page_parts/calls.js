/** The token is behind the # of the link: browsers send it nowhere by themselves. */
const token = () => decodeURIComponent(location.hash.slice(1));

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function call(name, values = {}, keepalive = false) {
  const answer = await fetch(`api/${name}`, {
    method: "POST", keepalive, cache: "no-store",
    headers: { "Authorization": `Bearer ${token()}`, "Content-Type": "application/json" },
    body: JSON.stringify(values),
  });
  const found = await answer.json();
  if (!answer.ok) throw new Refused(answer.status, found.error);
  return found;
}
