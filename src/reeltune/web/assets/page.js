// What the page does without the server: colours, keyboard shortcuts, dropped files and the length of a video.
(() => {
  // --- colours: those of the system, until the user chooses; the choice is stored in the browser ----------------
  const THEME = 'reeltune-theme';
  const chosen = () => { try { return localStorage.getItem(THEME); } catch { return null; } };
  const colour = () => { if (chosen()) document.body?.classList.toggle('dark', chosen() === 'dark'); };
  reeltune.theme = button => {
    colour();
    button.addEventListener('click', () => {
      const dark = !document.body.classList.contains('dark');
      document.body.classList.toggle('dark', dark);
      try { localStorage.setItem(THEME, dark ? 'dark' : 'light'); } catch { /* private window: the choice is not stored */ }
    });
  };
  document.addEventListener('DOMContentLoaded', colour);

  // --- short messages ----------------------------------------------------------------------------------------------
  reeltune.toast = words => {
    document.querySelector('.rt-toast')?.remove();
    const toast = Object.assign(document.createElement('div'), { className: 'rt-toast', textContent: words });
    toast.setAttribute('role', 'status');
    document.querySelector('.gradio-container').append(toast);
    setTimeout(() => toast.remove(), 6000);
  };

  // Scroll to an error message, unless it is in view.
  reeltune.show = element => {
    const box = element.getBoundingClientRect();
    const outside = box.top < 0 || box.bottom > window.innerHeight;
    if (outside && element.querySelector('.rt-problem')) element.scrollIntoView({ block: 'nearest' });
  };

  // Scroll to a video that was opened below the cards, as on narrow screens.
  reeltune.reveal = element => {
    const box = element.getBoundingClientRect();
    if (box.top < 0 || box.top > window.innerHeight * 0.6) element.scrollIntoView({ block: 'start' });
  };

  // A video that was opened by a click plays with its sound, unless the browser doesn't allow it.
  reeltune.opened = element => {
    reeltune.reveal(element);
    const video = element.querySelector('video');
    if (video?.matches('[data-sound]')) reeltune.unmute(video);
    else if (video) video.muted = true;  // the element of the video before is used again
  };

  reeltune.unmute = video => {
    video.muted = false;
    video.play().catch(error => {
      if (error.name !== 'NotAllowedError') return;
      video.muted = true;
      video.play().catch(() => {});
    });
  };

  // --- keys --------------------------------------------------------------------------------------------------------
  document.addEventListener('keydown', event => {
    if (event.key !== 'Enter' || !(event.ctrlKey || event.metaKey)) return;
    const button = document.querySelector('#generate');
    if (!button?.offsetParent || button.disabled) return;
    event.preventDefault();
    button.click();
  }, true);

  // --- the length of a video, computed from its number of frames -------------------------------------------------------
  reeltune.lengths = () => {
    const slider = document.querySelector('#field-video_length');
    const rate = /rt-rate-(\d+)/.exec(slider?.className || '');
    const number = slider?.querySelector('input[type=number]');
    const place = slider?.querySelector('.info-text');
    if (!rate || !number || !place) return;
    const own = parseInt(document.querySelector('#field-force_fps textarea, #field-force_fps input')?.value, 10);
    const fps = own > 0 ? own : Number(rate[1]);
    place.textContent = `${(Number(number.value) / fps).toFixed(1)} s at ${fps} frames per second`;
  };
  document.addEventListener('input', event => {
    if (event.target.closest?.('#field-video_length, #field-force_fps')) requestAnimationFrame(reeltune.lengths);
  });

  // --- dropped files: an image or a video goes to a field of the form that takes it -----------------------
  const own = event => event.target.closest?.('#create, #configuration, #import-queue, .rt-inputs .block');
  const carries = event => [...(event.dataTransfer?.types || [])].includes('Files');
  const fields = kind => [...document.querySelectorAll(`.rt-inputs .rt-takes-${kind}`)].filter(row => row.offsetParent);
  const filled = field => field.querySelector('img, video, .file-preview');
  const target = kind => fields(kind).find(field => !filled(field)) || fields(kind)[0];
  const mark = on => document.body.classList.toggle('rt-dragging', on);
  let away = 0;
  document.addEventListener('dragover', event => {
    if (!carries(event)) return;
    mark(true);
    clearTimeout(away);
    away = setTimeout(() => mark(false), 200);
    if (!own(event)) event.preventDefault();
  });
  document.addEventListener('drop', async event => {
    mark(false);
    if (!carries(event) || own(event)) return;
    event.preventDefault();
    const file = event.dataTransfer.files[0];
    if (!file) return;
    const loras = document.querySelector('.rt-takes-lora');
    if (loras && file.name.toLowerCase().endsWith('.safetensors')) return put(loras, file);
    const named = file.name.toLowerCase().endsWith('.npy') ? 'tracks' : '';
    const kind = file.type.startsWith('image/') ? 'image' : file.type.startsWith('video/') ? 'video' : named;
    const field = kind && target(kind);
    if (field) put(field, file);
    else reeltune.toast(refusal(kind));
  });
  const refusal = kind => {
    const words = kind === 'tracks' ? 'trajectories' : kind;
    if (kind) return `This model takes no ${words}. Pick one that does, or press “Use settings of a file”.`;
    return 'Only images, videos and LoRAs can be dropped here. For settings press “Use settings of a file”.';
  };
  const put = async (field, file) => {
    const pause = time => new Promise(done => setTimeout(done, time));
    if (filled(field)) {
      field.querySelector('button[aria-label="Clear"], button[aria-label="Remove Image"]')?.click();
      for (let tries = 0; tries < 40 && (filled(field) || !field.querySelector('input[type=file]')); tries++) await pause(25);
      await pause(200);  // Gradio's field needs some time after it looks empty
    }
    const input = field.querySelector('input[type=file]');
    if (!input) return;
    const files = new DataTransfer();
    files.items.add(file);
    input.files = files.files;
    input.dispatchEvent(new Event('change', { bubbles: true }));
    field.scrollIntoView({ block: 'nearest' });
  };

  // --- messages of refused uploads: remove the HTTP status that Gradio adds ------------------------------------
  new MutationObserver(() => {
    document.querySelectorAll('[data-testid="toast-text"]').forEach(toast => {
      const text = toast.textContent;
      if (/^HTTP \d+: /.test(text)) toast.textContent = text.replace(/^HTTP \d+: /, '');
    });
  }).observe(document.documentElement, { childList: true, subtree: true });

  // --- the button that turns a video's sound on, from the start of the video -------------------------------------
  document.addEventListener('click', event => {
    const video = event.target.closest?.('[data-unmute]')?.parentElement.querySelector('video');
    if (!video) return;
    video.currentTime = 0;
    reeltune.unmute(video);
  });
  for (const name of ['volumechange', 'timeupdate']) {  // they don't bubble
    document.addEventListener(name, event => {
      const video = event.target;
      if (!video.matches('video[data-sound]')) return;
      const button = video.parentElement.querySelector('[data-unmute]');
      if (button) button.hidden = !video.muted;  // also of a button that the server has replaced
      if (video.muted) return;
      if (name === 'volumechange') {
        for (const other of document.querySelectorAll('video[data-sound]')) if (other !== video) other.muted = true;
      }
      const shown = video.checkVisibility() || document.pictureInPictureElement === video;
      if (!shown) video.pause();  // no sound from a tab that is not shown
    }, true);
  }

  // --- videos that play while the pointer is over them ------------------------------------------------------------
  const film = event => event.target.closest?.('[data-film]')?.querySelector('video[data-hover]');
  for (const name of ['mouseover', 'focusin']) {
    document.addEventListener(name, event => film(event)?.play().catch(() => {}));
  }
  for (const name of ['mouseout', 'focusout']) {
    document.addEventListener(name, event => film(event)?.pause());
  }
})();
