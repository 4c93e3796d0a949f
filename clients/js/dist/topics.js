/** Names of topics, and filters that match them: the server's rules, so that what it would refuse is refused before it is sent. */
import { HeartbusError } from './errors.js';
/** In bytes of UTF-8. */
export const MAX_TOPIC_BYTES = 255;
/** Half of a pair of code units stands alone: no UTF-8 can be made of that. */
export function isWellFormed(text) {
    return !/[\ud800-\udfff]/u.test(text);
}
/** How many bytes a well-formed text is in UTF-8. */
export function utf8Length(text) {
    let bytes = text.length;
    for (let index = 0; index < text.length; index++) {
        const unit = text.charCodeAt(index);
        // A pair of units is four bytes: two for each.
        bytes += unit < 0x80 ? 0 : unit < 0x800 || (unit >= 0xd800 && unit < 0xe000) ? 1 : 2;
    }
    return bytes;
}
/** Whether a filter has a level that is `+` or `#`. */
export function isWild(filter) {
    return filter.split('/').some((level) => level === '+' || level === '#');
}
/** Throws where nothing can be subscribed to by this text. */
export function checkFilter(filter) {
    checkText(filter);
    if (filter.split('/').slice(0, -1).includes('#')) {
        refuse(filter, 'in a filter # stands for the rest, so it is the last level');
    }
}
/** Throws where nothing can be published under this text. */
export function checkTopic(topic) {
    checkText(topic);
    if (isWild(topic)) {
        refuse(topic, 'a topic to publish to has no level that is + or #');
    }
}
/** Whether a filter, with wildcards or without, matches a topic. */
export function matches(filter, topic) {
    const levels = topic.split('/');
    const wanted = filter.split('/');
    if (topic.startsWith('$') && (wanted[0] === '+' || wanted[0] === '#')) {
        return false;
    }
    for (const [depth, level] of wanted.entries()) {
        if (level === '#') {
            return true;
        }
        if (depth >= levels.length || (level !== '+' && level !== levels[depth])) {
            return false;
        }
    }
    return wanted.length === levels.length;
}
function checkText(text) {
    if (typeof text !== 'string' || text === '') {
        refuse('', 'a topic has at least one byte');
    }
    if (!isWellFormed(text)) {
        refuse(text, 'a topic is UTF-8');
    }
    if (utf8Length(text) > MAX_TOPIC_BYTES) {
        refuse(text, `a topic has at most ${MAX_TOPIC_BYTES} bytes`);
    }
    if (/\p{Cc}/u.test(text)) {
        refuse(text, 'a topic has no control characters');
    }
}
function refuse(topic, why) {
    throw new HeartbusError('invalid_argument', `${JSON.stringify(topic)}: ${why}`, { topic });
}
