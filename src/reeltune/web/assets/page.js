// A file dropped anywhere on the page goes to the button that takes settings; videos of the gallery play when pointed at.
(() => {
  const taker = () => document.querySelector('input[type=file]:has(+ #take-file)');
  const foreign = event => !event.target.closest('#form .block, #create, #configuration, #import-queue')
    && [...(event.dataTransfer?.types || [])].includes('Files');
  document.addEventListener('dragover', event => { if (foreign(event)) event.preventDefault(); });
  document.addEventListener('drop', event => {
    if (!foreign(event)) return;
    event.preventDefault();
    const input = taker();
    if (!input || !event.dataTransfer.files.length) return;
    const files = new DataTransfer();
    files.items.add(event.dataTransfer.files[0]);
    input.files = files.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
  });
  const film = event => event.target.closest?.('[data-film]')?.querySelector('video[data-hover]');
  for (const name of ['mouseover', 'focusin']) {
    document.addEventListener(name, event => film(event)?.play().catch(() => {}));
  }
  for (const name of ['mouseout', 'focusout']) {
    document.addEventListener(name, event => film(event)?.pause());
  }
})();
