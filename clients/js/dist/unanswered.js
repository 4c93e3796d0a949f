/** What waits for an answer of the server, each with the number that the answer will carry. */
export class Unanswered {
    waiting = new Map();
    get size() {
        return this.waiting.size;
    }
    /** `cancel`: ends what would reject it in time. */
    add(id, waiter, cancel) {
        this.waiting.set(id, { ...waiter, cancel });
    }
    /** Who waits for this number, and no longer does. */
    take(id) {
        const found = this.waiting.get(id);
        this.waiting.delete(id);
        found?.cancel();
        return found;
    }
    /** None of them is answered any more. */
    rejectAll(error) {
        for (const id of [...this.waiting.keys()]) {
            this.take(id)?.reject(error());
        }
    }
}
