// HTML with buttons, whose data attributes are sent to the server. The server replaces the HTML when something has
// changed; searches, filters, open details, the scroll position and the focus are restored afterwards.
window.reeltune = {};

// The hashes of everything that is shown: those in the HTML, and those of other components as JSON in `seen`.
reeltune.marks = seen => JSON.stringify({
  ...JSON.parse(seen || '{}'),
  ...Object.fromEntries([...document.querySelectorAll('[data-part]')].map(part => [part.dataset.part, part.dataset.mark])),
});

reeltune.lively = (element, trigger, watch, updated = () => {}) => {
  const state = { words: '', filters: new Set(), open: new Map(), focused: null, scrolled: null };
  const all = selector => [...element.querySelectorAll(selector)];
  const find = () => element.querySelector('[data-search]');

  const sift = () => {
    const wanted = state.words.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = all('[data-words]');
    for (const row of rows) {
      const tags = (row.dataset.tags || '').split(' ');
      row.hidden = !wanted.every(word => row.dataset.words.includes(word))
        || ![...state.filters].every(tag => tags.includes(tag));
    }
    for (const group of all('[data-group]')) group.hidden = !group.querySelector('[data-words]:not([hidden])');
    for (const chip of all('[data-filter]')) chip.setAttribute('aria-pressed', state.filters.has(chip.dataset.filter));
    for (const none of all('[data-none]')) none.hidden = !rows.length || rows.some(row => !row.hidden);
  };

  const reveal = () => {
    const current = element.querySelector('[data-scroll] [aria-current="true"]');
    const box = current?.closest('[data-scroll]');
    if (!box || !box.clientHeight) return;
    const top = current.getBoundingClientRect().top - box.getBoundingClientRect().top + box.scrollTop;
    if (top < box.scrollTop || top + current.offsetHeight > box.scrollTop + box.clientHeight) {
      box.scrollTop = top - (box.clientHeight - current.offsetHeight) / 2;
    }
  };

  const restore = () => {
    for (const details of all('details[data-key]')) {
      if (state.open.has(details.dataset.key)) details.open = state.open.get(details.dataset.key);
    }
    if (find()) find().value = state.words;
    sift();
    const box = element.querySelector('[data-scroll]');
    if (box && state.scrolled !== null) box.scrollTop = state.scrolled;
    else reveal();  // the order changes when the states of the models are known
    if (state.focused && document.activeElement === document.body) {
      element.querySelector(`[data-key="${CSS.escape(state.focused)}"]`)?.focus();
    }
  };

  const choose = button => {
    for (const row of all('[data-pick]')) {
      row.setAttribute('aria-current', row === button);
      if (row.closest('[data-arrows]')) row.tabIndex = row === button ? 0 : -1;
    }
  };

  element.addEventListener('input', event => {
    if (!event.target.matches('[data-search]')) return;
    state.words = event.target.value;
    sift();
  });
  element.addEventListener('click', event => {
    const chip = event.target.closest('[data-filter]');
    if (chip) {
      const tag = chip.dataset.filter;
      if (!state.filters.delete(tag)) state.filters.add(tag);
      sift();
      return;
    }
    if (event.target.closest('[data-clear]')) {
      state.words = '';
      state.filters.clear();
      restore();
      find()?.focus();
      return;
    }
    const button = event.target.closest('[data-do]');
    if (!button || button.disabled) return;
    if (button.dataset.confirm && !window.confirm(button.dataset.confirm)) return;
    if (button.dataset.pick !== undefined) choose(button);
    trigger('click', { ...button.dataset });
  });
  element.addEventListener('toggle', event => {
    if (event.target.dataset?.key) state.open.set(event.target.dataset.key, event.target.open);
  }, true);
  element.addEventListener('keydown', event => {
    const rows = all('[data-arrows] button[data-words]:not([hidden])').filter(row => row.offsetParent);
    const searching = event.target.matches('[data-search]');
    const at = rows.indexOf(event.target);
    if (!rows.length || (at < 0 && !searching)) return;
    const steps = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 };
    if (searching && event.key === 'Enter' && state.words.trim()) {
      rows[0].click();
    } else if (event.key in steps && !(searching && event.key !== 'ArrowDown')) {
      if (at === 0 && event.key === 'ArrowUp') find()?.focus();
      else rows[Math.min(steps[event.key], rows.length - 1)]?.focus();
    } else {
      return;
    }
    event.preventDefault();
  });
  for (const name of ['wheel', 'touchmove', 'pointerdown', 'keydown']) {  // the list keeps the position that the user chose
    element.addEventListener(name, event => {
      const box = event.target.closest?.('[data-scroll]');
      if (box) state.scrolled = box.scrollTop;
    }, { passive: true });
  }
  element.addEventListener('scroll', event => {
    if (state.scrolled !== null && event.target.matches?.('[data-scroll]')) state.scrolled = event.target.scrollTop;
  }, true);
  element.addEventListener('focusin', event => { state.focused = event.target.dataset.key || null; });
  element.addEventListener('focusout', event => { if (event.relatedTarget) state.focused = null; });
  watch('value', () => { restore(); updated(element); });
  reveal();
  new ResizeObserver((_, observer) => {  // a list in a hidden tab has no height yet
    const box = element.querySelector('[data-scroll]');
    if (box?.clientHeight) { reveal(); observer.disconnect(); }
  }).observe(element);
};
