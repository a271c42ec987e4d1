/** What a host can do with the chat's events: a conversation gets its name as soon as something is said in it. */

const names = document.querySelectorAll("h1[data-name], [aria-current=page] [data-name]");

document.addEventListener(
  "durable-chat:send",
  (event) => {
    const [{ content }] = event.detail.message.parts;
    for (const name of names) {
      if (name.textContent !== "New conversation") continue;
      name.textContent = content.slice(0, 80);
      document.title = `${name.textContent} · Durable chat`;
    }
  },
);
