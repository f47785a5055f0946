// What the cleaning steps ask about a text, found in one call.
//
// scan.py compiles this file, builds the tables and says what every fact means. A text is UTF-8; any other bytes are safe
// too. All is counted in integers, so that every machine finds the same.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

// What a character is, as scan_tables.py has it.
enum { BREAK = 1, LETTER = 2, UNSPACED = 4, DIGIT = 8, SPACE = 16, IRREGULAR = 32, LEAD = 64, FOLLOW = 128,
       ANOTHER_SCRIPT = 256, DISGUISED = 512, MARK_END = 1024 };
enum { PRIVATE = 0, NAMES = 1 };  // groups of needles
enum { SLOTS = 4096, CHARACTER_LISTS = 3, ENGLISH = 63, MOSTLY_ENGLISH = 62, FOREIGN = 61, NO_CHARACTER = 0xFFFF,
       SIGMA = 1 << 16 };
enum { MARK_LENGTH = 80, GAP = 4, LONGEST_WORD = 40 };  // characters; characters; bytes
#define LITTLE_ENDIAN_ (__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__)

typedef struct { uint64_t hash, lists; } word;
typedef struct { uint32_t beginning, place, length; int32_t group, folded; } needle;

typedef struct {
    const uint16_t *kinds, *lower;  // of every UTF-16 unit; of an ASCII text, of every byte
    const word *words;              // SLOTS
    int64_t word_lists;             // the lists of stop characters come after them
    const uint64_t *beginnings;     // a bit for the hash of every three bytes that a needle begins with
    const needle *needles;
    int64_t needle_count;
    const uint8_t *needle_bytes;
    int64_t known;                  // units that the tables have: 128 of an ASCII text, else 65536
    int64_t most_tokens_of, head, samples, sample, enough_stop_words;
} tables;

typedef struct {
    int64_t unspaced, tokens, spaced_words, lettered_words, letters_and_digits;
    int64_t token_characters, repeated_characters;
    int64_t repeated_lines, longest_block, mark_lines, newline_run;
    int64_t untidy, irregular, personal, needles;
    int64_t stop_words, sample_words, sample_english, sample_mostly, sample_foreign;
} facts;

static const uint64_t FACTOR = 0xD6E8FEB86659FD93u;

static inline uint64_t mixed(uint64_t x) {
    x = (x ^ (x >> 32)) * FACTOR;
    x = (x ^ (x >> 32)) * FACTOR;
    return x ^ (x >> 32);
}

// The character at *at, which moves behind it. What is no UTF-8 gives any code up to U+10FFFF.
static inline uint32_t next(const uint8_t *text, int64_t size, int64_t *at) {
    uint32_t code = text[(*at)++];
    if (code < 0x80) return code;
    int more = code >= 0xF0 ? 3 : code >= 0xE0 ? 2 : 1;
    code &= 0x3F >> more;
    while (more-- && *at < size) code = code << 6 | (text[(*at)++] & 0x3F);
    return code > 0x10FFFF ? 0x10FFFF : code;
}

// The character before ``at``, which is above ``begin``.
static uint32_t last(const uint8_t *text, int64_t begin, int64_t at, int64_t *where) {
    int64_t from = at - 1;
    while (from > begin && at - from < 4 && (text[from] & 0xC0) == 0x80) from--;
    *where = from;
    return next(text, at, &from);
}

static inline uint8_t small(uint8_t byte) { return byte >= 'A' && byte <= 'Z' ? byte | 0x20 : byte; }

static inline uint16_t kind_of(const tables *t, uint32_t code) { return code < t->known ? t->kinds[code] : 0; }

// Where so many characters after ``at`` begin.
static int64_t skipped(const uint8_t *text, int64_t size, int64_t at, int64_t characters) {
    while (at < size && characters-- > 0) next(text, size, &at);
    return at;
}

// The first ``size`` of eight bytes, the others 0; ``end`` is that of what may be read.
static inline uint64_t load(const uint8_t *text, int64_t size, const uint8_t *end) {
    uint64_t part = 0;
    if (size >= 8) memcpy(&part, text, 8);
    else if (LITTLE_ENDIAN_ && end - text >= 8) { memcpy(&part, text, 8); part &= ((uint64_t)1 << 8 * size) - 1; }
    else memcpy(&part, text, size);
    return part;
}

// The bytes in the order of this machine's words: equal bytes have equal hashes, which say nothing else.
static inline uint64_t hash_of(const uint8_t *text, int64_t size, const uint8_t *end) {
    uint64_t hash = (uint64_t)size * FACTOR;
    for (; size > 8; size -= 8, text += 8) {
        hash = (hash ^ load(text, 8, end)) * FACTOR;
        hash ^= hash >> 29;
    }
    return mixed(hash ^ load(text, size, end));
}

// --- tokens -----------------------------------------------------------------------------------------------------------

// Adds a hash to a set, an open-addressing table of 2^bits; 1 where it was in it. 0 marks what is empty.
static inline int seen_before(uint64_t *set, int bits, uint64_t hash) {
    uint64_t mask = ((uint64_t)1 << bits) - 1;
    hash += !hash;
    for (uint64_t slot = hash >> (64 - bits);; slot = (slot + 1) & mask) {
        if (set[slot] == hash) return 1;
        if (!set[slot]) { set[slot] = hash; return 0; }
    }
}

static uint64_t *new_set(int64_t most, int *bits) {  // at most a quarter full
    for (*bits = 4; (int64_t)1 << *bits < 4 * most; ++*bits) {}
    return calloc((size_t)1 << *bits, sizeof(uint64_t));
}

typedef struct {
    uint64_t *hashes;
    uint32_t *lengths;
    int64_t count;
} token_list;

// Characters in runs of n tokens that have stood before; -1 where there is no memory.
static int64_t repeated(const token_list *tokens, int64_t n) {
    if (tokens->count <= n) return 0;
    int bits;
    uint64_t *set = new_set(tokens->count, &bits), power = 1, run = 0;
    if (!set) return -1;
    for (int64_t i = 1; i < n; i++) power *= FACTOR;
    int64_t total = 0, covered = 0;  // tokens before it are counted
    for (int64_t i = 0; i < tokens->count; i++) {
        if (i >= n) run -= tokens->hashes[i - n] * power;
        run = run * FACTOR + tokens->hashes[i];
        if (i + 1 < n || !seen_before(set, bits, mixed(run))) continue;
        for (int64_t at = covered > i + 1 - n ? covered : i + 1 - n; at <= i; at++) total += tokens->lengths[at];
        covered = i + 1;
    }
    free(set);
    return total;
}

// Whether most words are of a script without spaces, where 1.6 characters count as one.
static int is_unspaced(const facts *f) { return 5 * f->unspaced > 8 * f->spaced_words; }

// Adds a token of so many UTF-16 units, of which the first ``most`` of a text are kept.
static inline void add_token(token_list *tokens, facts *f, const uint8_t *from, const uint8_t *to, const uint8_t *end,
                             int64_t units, int64_t place, int64_t most) {
    f->tokens++;
    if (place >= most) return;
    uint64_t cut = 0;
    if (place + units > most) {
        units = most - place;
        const uint8_t *whole = to;
        int64_t at = 0, left = units;
        while (left > 0) left -= next(from, whole - from, &at) < 0x10000 ? 1 : 2;
        to = from + at;
        cut = left < 0;  // in the middle of a surrogate pair: it equals nothing
    }
    tokens->hashes[tokens->count] = hash_of(from, to - from, end) ^ cut;
    tokens->lengths[tokens->count++] = units;
    f->token_characters += units;
}

static int is_irregular(uint32_t code) {  // beyond the basic plane; emoji and ideographs are not
    int picture = code >= 0x1F000 && code < 0x1FB00, ideograph = code >= 0x20000 && code < 0x2F800;
    return !(picture || ideograph) || (code & 0xFFFE) == 0xFFFE;
}

// Characters and tokens; 0 where there is no memory.
static int count_characters(const uint8_t *text, int64_t size, const tables *t, facts *f) {
    int64_t most = t->most_tokens_of, room = (size < most ? size : most) + 1;
    token_list tokens = {malloc(room * sizeof(uint64_t)), malloc(room * sizeof(uint32_t)), 0};
    int found = tokens.hashes && tokens.lengths;
    uint32_t every = 0, irregular = 0, before = 0;
    int64_t units = 0;
    for (int64_t at = 0, from = 0; found && at < size; from = at) {
        uint32_t of_word = 0;
        int64_t counted = 0, begin = units, to = at;
        while (at < size) {  // through the characters of a word
            uint32_t code = text[at], kind;
            to = at;
            if (code < 0x80) {
                at++;
                kind = t->kinds[code];
            } else if ((code = next(text, size, &at)) < 0x10000) {
                kind = kind_of(t, code);
                irregular |= (before & LEAD) && (kind & FOLLOW);
            } else {
                kind = 0;
                irregular |= is_irregular(code);
                units++;
            }
            before = kind;
            units++;
            every |= kind;
            if (kind & (BREAK | UNSPACED)) break;
            of_word |= kind;
            counted += (kind & (LETTER | DIGIT)) != 0;
            to = at;
        }
        int unspaced = to < at && (before & UNSPACED), ended = to < at;
        if (to > from) {
            add_token(&tokens, f, text + from, text + to, text + size, units - begin - ended, begin, most);
            f->spaced_words += (of_word & (LETTER | DIGIT)) != 0;
            f->lettered_words += (of_word & LETTER) != 0;
            f->letters_and_digits += counted;
        }
        if (unspaced) {
            add_token(&tokens, f, text + to, text + at, text + size, 1, units - 1, most);
            f->unspaced++;
        }
    }
    f->irregular = irregular || (every & IRREGULAR);
    f->personal = every & DISGUISED;
    f->repeated_characters = found ? repeated(&tokens, is_unspaced(f) ? 8 : 5) : 0;  // words, or as many characters
    free(tokens.hashes);
    free(tokens.lengths);
    return found && f->repeated_characters >= 0;
}

// --- lines ------------------------------------------------------------------------------------------------------------

static int64_t count_newlines(const uint8_t *text, int64_t size) {
    int64_t count = 0;
    for (int64_t i = 0; i < size; i++) count += text[i] == '\n';
    return count;
}

static int count_lines(const uint8_t *text, int64_t size, const tables *t, facts *f) {
    int bits;
    uint64_t *set = new_set(count_newlines(text, size) + 1, &bits);
    if (!set) return 0;
    int64_t block = 0, run = 0;
    for (int64_t begin = 0, end; begin <= size; begin = end + 1) {
        const uint8_t *newline = size > begin ? memchr(text + begin, '\n', size - begin) : NULL;
        end = newline ? newline - text : size;
        if (newline) run = end > begin ? 1 : run + 1;
        f->newline_run = run > f->newline_run ? run : f->newline_run;
        int64_t from = begin, to = end, after = begin, before = end;  // of the line without the spaces around it
        if (end > begin) {
            uint32_t first = next(text, end, &after), final = last(text, begin, end, &before);
            f->untidy |= final == ' ' || final == '\t' || final == 0x3000;
            if ((first >= '0' && first <= '9') || kind_of(t, final) & MARK_END)
                f->mark_lines += skipped(text, end, begin, MARK_LENGTH) == end;
        }
        for (after = begin; after < end && kind_of(t, next(text, end, &after)) & SPACE;) from = after;
        while (to > from && kind_of(t, last(text, from, to, &before)) & SPACE) to = before;
        if (to > from) f->repeated_lines += seen_before(set, bits, hash_of(text + from, to - from, text + size));
        block = from > begin || from == end ? to > from : block + 1;  // an indented line begins one, a blank one ends it
        f->longest_block = block > f->longest_block ? block : f->longest_block;
    }
    f->untidy |= size > 0 && (text[0] == '\n' || (size > 1 && text[size - 1] == '\n' && text[size - 2] == '\n'));
    free(set);
    return 1;
}

// --- what may be personal data ----------------------------------------------------------------------------------------

static inline uint32_t folded(uint32_t code) {  // as pii_view.py reads it
    if (code >= 0xFF01 && code <= 0xFF5E) return code - 0xFF01 + '!';
    if ((code >= 0x2010 && code <= 0x2015) || code == 0x2212) return '-';
    return code == 0xA0 || (code >= 0x2000 && code <= 0x200A) || code == 0x202F || code == 0x3000 ? ' ' : code;
}

// Digits in a row, in characters: of a chain, any three others may stand between two; of a number, only its marks.
typedef struct { int64_t count, length, number, dots, next; } chain;

static int is_long(const chain *digits) {
    return digits->count >= 7 || (digits->count >= 4 && digits->length - digits->count >= 3);
}

// Takes the digit at ``at`` and returns whether its number may be one of a phone, a card, an identity or a computer.
static int take_digit(chain *digits, const uint8_t *text, int64_t size, int64_t at) {
    int64_t gap = 1, dots = 0;
    int number = digits->count > 0;
    for (int64_t to = digits->next; digits->count && to < at && gap <= GAP; gap++) {
        uint32_t code = folded(next(text, size, &to));
        number &= code == ' ' || code == '.' || code == '-' || code == '/' || code == '(' || code == ')';
        dots += code == '.';
    }
    if (!digits->count || gap > GAP) *digits = (chain){0}, gap = 1, number = 0;
    if (!number) digits->number = digits->dots = 0;
    digits->count++;
    digits->length += gap;
    digits->number++;
    digits->dots += number ? dots : 0;
    digits->next = at;
    next(text, size, &digits->next);
    return digits->number >= 7 || digits->dots >= 3;
}

static int is_edge(uint32_t code) { return code - '!' >= 94; }

// What the word at ``at`` is, which moves to its end: 0 a short one, 1 one of eight characters, 2 more than a number.
static int word_with_digit(const uint8_t *text, int64_t size, int64_t *at) {
    int64_t begin = *at, before, length = 0;
    while (begin > 0 && !is_edge(folded(last(text, 0, begin, &before)))) begin = before;
    int equals = 0, colons = 0;
    for (int64_t to = begin; to < size; *at = to) {
        uint32_t code = folded(next(text, size, &to));
        if (is_edge(code)) break;
        equals += code == '=';
        colons += code == ':';
        length++;
    }
    return length < 8 ? 0 : equals || colons >= 2 || length >= 16 ? 2 : 1;
}

// Whether there is an @, an escape, "at)", a long number, a chain of digits beside capitals as in an IBAN, or a word with
// a digit that is more than a number; and whether there is any word that pii_view.py lists.
static int may_be_personal(const uint8_t *text, int64_t size, int *words) {
    chain digits = {0};
    int chains = 0, capitals = 0;
    for (int64_t at = 0, end = 0; at < size;) {  // ``end``: of the word
        uint32_t code = text[at];
        if (!(code - '0' < 10 || code == '@' || code == '\\' || code == ')' || code == ']' || code == 0xEF)) {
            at++;
            continue;
        }
        int64_t from = at;
        code = folded(next(text, size, &at));
        uint8_t before = from > 0 ? text[from - 1] : 0, before_that = from > 1 ? text[from - 2] : 0;
        if (code == '@' || code == '\\') return 1;
        if ((code == ')' || code == ']') && small(before) == 't' && small(before_that) == 'a') return 1;
        if (code - '0' >= 10) continue;
        if (take_digit(&digits, text, size, from)) return 1;
        chains |= is_long(&digits);
        capitals |= small(before) != before && small(before_that) != before_that;
        if (from < end) continue;
        end = from;
        int kind = word_with_digit(text, size, &end);
        if (kind == 2) return 1;
        *words |= kind;
    }
    return chains && capitals;
}

// --- words ------------------------------------------------------------------------------------------------------------

// The groups of the needles that stand in a text, a bit for each.
static int64_t find_needles(const uint8_t *text, int64_t size, const tables *t) {
    int64_t found = 0;
    for (int64_t at = 0; at + 3 <= size; at++) {
        uint32_t three = (text[at] << 16 | text[at + 1] << 8 | text[at + 2]) | 0x202020;  // letters become small
        uint32_t slot = (three * 0x9E3779B1u) >> 20;
        if (!(t->beginnings[slot >> 6] >> (slot & 63) & 1)) continue;
        for (const needle *n = t->needles; n < t->needles + t->needle_count; n++) {
            if (n->beginning != three || found >> n->group & 1 || n->length > size - at) continue;
            const uint8_t *here = text + at, *wanted = t->needle_bytes + n->place;
            uint32_t i = 0;
            while (i < n->length && (n->folded ? small(here[i]) : here[i]) == wanted[i]) i++;
            if (i == n->length) found |= (int64_t)1 << n->group;
        }
    }
    return found;
}

static const word *look_up(const word *words, uint64_t hash) {
    hash += !hash;
    for (uint64_t slot = hash % SLOTS; words[slot].hash; slot = (slot + 1) % SLOTS)
        if (words[slot].hash == hash) return words + slot;
    return NULL;
}

// Adds a word in small letters to a table of SLOTS, which has room.
void add_word(word *words, const uint8_t *text, int64_t size, uint64_t lists) {
    uint64_t hash = hash_of(text, size, text + size);
    hash += !hash;
    uint64_t slot = hash % SLOTS;
    while (words[slot].hash && words[slot].hash != hash) slot = (slot + 1) % SLOTS;
    words[slot].hash = hash;
    words[slot].lists |= lists;
}

// The entry of a word, looked up in small letters; NULL where there is none.
static const word *entry(const uint8_t *text, int64_t size, const tables *t) {
    uint8_t lower[LONGEST_WORD + 4];
    if (size > LONGEST_WORD) return NULL;
    int64_t length = 0;
    for (int64_t at = 0; at < size;) {
        uint32_t code = next(text, size, &at);
        code = code < t->known ? t->lower[code] : NO_CHARACTER;
        if (code == NO_CHARACTER || length > LONGEST_WORD) return NULL;
        if (code < 0x80) lower[length++] = code;
        else if (code < 0x800) lower[length++] = 0xC0 | code >> 6, lower[length++] = 0x80 | (code & 0x3F);
        else {
            lower[length++] = 0xE0 | code >> 12;
            lower[length++] = 0x80 | (code >> 6 & 0x3F);
            lower[length++] = 0x80 | (code & 0x3F);
        }
    }
    return look_up(t->words, hash_of(lower, length, lower + sizeof lower));
}

typedef void taker(void *state, const word *found);

// Calls ``take`` with the entry of every word between spaces; returns the kinds of all characters, and SIGMA where there
// is one: its small letter depends on what comes after it.
static inline uint32_t each_word(const uint8_t *text, int64_t begin, int64_t end, const tables *t, taker *take,
                                 void *state) {
    uint32_t kinds = 0;
    for (int64_t at = begin; at < end;) {
        int64_t from = at, to = at;
        while (at < end) {
            uint32_t code = text[at], kind;
            if (code < 0x80) at++;
            else if ((code = next(text, end, &at)) >= 0x10000) code = 0xD800 + ((code - 0x10000) >> 10);
            kind = kind_of(t, code);
            if (kind & SPACE) break;
            kinds |= kind | (code == 0x3A3) * SIGMA;
            to = at;
        }
        if (to > from) take(state, entry(text + from, to - from, t));
    }
    return kinds;
}

typedef struct { int64_t words, english, mostly, foreign; } sample;

static void take_of_sample(void *state, const word *found) {
    sample *s = state;
    s->words++;
    s->english += found && found->lists >> ENGLISH & 1;
    s->mostly += found && found->lists >> MOSTLY_ENGLISH & 1;
    s->foreign += found && found->lists >> FOREIGN & 1;
}

// The words of the parts of a text that tell its language; none where a letter is not Latin.
static void read_sample(const uint8_t *text, int64_t size, int64_t characters, const tables *t, facts *f) {
    sample s = {0};
    uint32_t kinds = 0;
    int64_t step = (characters - t->sample) / (t->samples - 1), at = 0;
    if (characters <= t->samples * t->sample) {
        kinds = each_word(text, 0, size, t, take_of_sample, &s);
    } else for (int64_t part = 0; part < t->samples; part++) {
        int64_t end = skipped(text, size, at, t->sample);
        kinds |= each_word(text, at, end, t, take_of_sample, &s);
        at = skipped(text, size, end, step - t->sample);
    }
    if (kinds & ANOTHER_SCRIPT) return;
    f->sample_words = s.words;
    f->sample_english = s.english;
    f->sample_mostly = s.mostly;
    f->sample_foreign = s.foreign;
}

typedef struct { const word *words; uint64_t seen[SLOTS / 64]; uint16_t counts[64]; } stops;

static void take_stop_word(void *state, const word *found) {
    stops *s = state;
    int64_t slot = found ? found - s->words : 0;
    if (!found || s->seen[slot / 64] >> slot % 64 & 1) return;
    s->seen[slot / 64] |= (uint64_t)1 << slot % 64;
    for (uint64_t lists = found->lists; lists; lists &= lists - 1) s->counts[__builtin_ctzll(lists)]++;
}

// Different stop words of the first list that has enough of them, or of the list that has most.
static int64_t count_stop_words(const uint8_t *text, int64_t size, const tables *t, const facts *f) {
    stops s = {.words = t->words};
    int64_t end = skipped(text, size, 0, t->head), lists = t->word_lists + CHARACTER_LISTS, most = 0;
    if (each_word(text, 0, end, t, take_stop_word, &s) & SIGMA) return 0;
    for (int64_t at = 0; f->unspaced && at < end;) {
        int64_t from = at;
        next(text, end, &at);
        take_stop_word(&s, look_up(t->words, hash_of(text + from, at - from, text + size)));
    }
    int64_t first = is_unspaced(f) ? t->word_lists : 0;
    for (int64_t i = 0; i < lists && most < t->enough_stop_words; i++) {
        int64_t count = s.counts[(first + i) % lists];
        most = count > most ? count : most;
    }
    return most;
}

// ----------------------------------------------------------------------------------------------------------------------

// Makes ASCII, in place, small letters with one space between words; returns how many bytes that are.
int64_t fold(uint8_t *text, int64_t size) {
    int64_t length = 0;
    for (int64_t at = 0; at < size; at++) {
        uint8_t byte = text[at];
        int space = byte == ' ' || (byte >= 9 && byte <= 13) || (byte >= 28 && byte <= 31);
        text[length] = space ? ' ' : small(byte);
        length += !space || (length > 0 && text[length - 1] != ' ');
    }
    return length > 0 && text[length - 1] == ' ' ? length - 1 : length;
}

// All facts of a text of so many characters; 0 where there is no memory.
int32_t scan(const uint8_t *text, int64_t size, int64_t characters, const tables *t, facts *f) {
    *f = (facts){0};
    if (!count_characters(text, size, t, f) || !count_lines(text, size, t, f)) return 0;
    int words = 0;
    f->needles = find_needles(text, size, t);
    f->personal |= may_be_personal(text, size, &words) || f->needles >> PRIVATE & 1 || (words && f->needles >> NAMES & 1);
    f->stop_words = count_stop_words(text, size, t, f);
    read_sample(text, size, characters, t, f);
    return 1;
}
