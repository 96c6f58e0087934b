/**
 * What is wrong with how a page looks: one line each. Text needs the contrast of WCAG AA against what lies behind it, whatever is
 * pressed 44 px each way (WCAG 2.5.5), nothing may be cut off or wider than the screen, and `wanted` must be in sight and uncovered.
 */
(wanted) => {
  const TAP = 44;
  const problems = [];
  const name = (element) => `${element.tagName.toLowerCase()}#${element.id || element.closest("[id]")?.id} "${element.textContent.trim().slice(0, 30)}"`;
  const colour = (text) => {
    const [red, green, blue, alpha = 1] = text.match(/[\d.]+/g).map(Number);
    return [red, green, blue, alpha];
  };
  const over = ([r, g, b, a], [R, G, B]) => [a * r + (1 - a) * R, a * g + (1 - a) * G, a * b + (1 - a) * B, 1];
  const behind = (element) => {
    const layers = [];
    for (let at = element; at; at = at.parentElement) {
      layers.unshift(colour(getComputedStyle(at).backgroundColor));
    }
    return layers.reduce((below, layer) => over(layer, below), [255, 255, 255, 1]);
  };
  const luminance = (rgb) => {
    const [r, g, b] = rgb.slice(0, 3).map((value) => (value / 255 <= 0.04045 ? value / 255 / 12.92 : ((value / 255 + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const seen = (element) => element.checkVisibility({ visibilityProperty: true }) && !element.closest("#spoken, .button:has(:disabled)");
  for (const element of document.querySelectorAll("body *")) {
    if (!seen(element) || element.disabled) continue;
    const style = getComputedStyle(element);
    if ([...element.childNodes].some((node) => node.nodeType === Node.TEXT_NODE && node.data.trim())) {
      const back = behind(element);
      const [light, dark] = [luminance(over(colour(style.color), back)), luminance(back)].sort((a, b) => b - a);
      const [ratio, size] = [(light + 0.05) / (dark + 0.05), parseFloat(style.fontSize)];
      const least = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700) ? 3 : 4.5;
      if (ratio < least) problems.push(`contrast ${ratio.toFixed(2)} of ${name(element)}`);
      const { left, right } = element.getBoundingClientRect();
      if (left < -0.5 || right > innerWidth + 0.5) problems.push(`beyond the screen's side: ${name(element)}`);
      if (style.overflow !== "visible" && element.scrollHeight > element.clientHeight + 1) problems.push(`cut off: ${name(element)}`);
    }
    if (element.matches("button, select, summary, a[href], .button")) {
      const { width, height } = element.getBoundingClientRect();
      if (Math.min(width, height) < TAP - 0.01) problems.push(`${width.toFixed()} x ${height.toFixed()} px to press: ${name(element)}`);
    }
  }
  const view = document.getElementById("view");
  if (view.scrollHeight > view.clientHeight + 1) problems.push(`cut off: ${name(view)}`);
  if (document.documentElement.scrollWidth > innerWidth) problems.push("wider than the screen");
  for (const selector of wanted) {
    const element = document.querySelector(selector);
    const { left, right, top, bottom } = element.getBoundingClientRect();
    const at = document.elementFromPoint((left + right) / 2, (top + bottom) / 2);
    if (top < 0 || bottom > innerHeight || !at || !(element.contains(at) || at.contains(element))) problems.push(`not in sight: ${selector}`);
  }
  return problems;
};
