#include "session.h"

#include <stdio.h>
#include <string.h>

/* A character of the two names as it goes into the key: upper case, letters past F as digits. */
static char key_letter(char letter)
{
    if (letter >= 'a' && letter <= 'z')
        letter = (char)(letter - 'a' + 'A');
    if (letter >= 'G' && letter <= 'Z')
        letter = (char)('0' + (letter - 'G') % 10);
    return letter;
}

/* A letter counts 10 to 15 as a hex digit does, and goes on past F as Perl's pack "H" has it. */
static uint8_t hex_value(char digit)
{
    int is_letter = (digit >= 'A' && digit <= 'Z') || (digit >= 'a' && digit <= 'z');

    return (uint8_t)((is_letter ? digit + 9 : digit) & 15);
}

static uint8_t hex_byte(const char *digits)
{
    return (uint8_t)(hex_value(digits[0]) << 4 | hex_value(digits[1]));
}

void make_session(struct session *session, const char *lond, const char *caller,
                  const char *buildkey)
{
    char names[256], text[3 * (sizeof names + 64)];
    uint8_t key[IDEA_KEY];

    snprintf(names, sizeof names, "%s%s", lond, caller);
    for (char *letter = names; *letter != '\0'; letter++)
        *letter = key_letter(*letter);
    snprintf(text, sizeof text, "%s%s%s%s%s%s", names, buildkey, names, buildkey, names, buildkey);
    for (int i = 0; i < IDEA_KEY; i++)
        key[i] = hex_byte(text + 2 * i);
    idea_keys(key, &session->encipher, &session->decipher);
}

ssize_t open_frame(const struct session *session, const char *frame, size_t length, char *text)
{
    const char *end = frame + length, *hex = frame + strlen("enc:");
    size_t text_length = 0, blocks;

    for (; hex < end && *hex >= '0' && *hex <= '9'; hex++) {
        text_length = 10 * text_length + (size_t)(*hex - '0');
        if (text_length > length)
            return -1;
    }
    blocks = text_length / IDEA_BLOCK + 1;
    if (hex == end || *hex++ != ':' || (size_t)(end - hex) != blocks * 2 * IDEA_BLOCK)
        return -1;
    for (size_t block = 0; block < blocks; block++) {
        uint8_t sealed[IDEA_BLOCK];

        for (int i = 0; i < IDEA_BLOCK; i++, hex += 2)
            sealed[i] = hex_byte(hex);
        idea_block(&session->decipher, sealed, (uint8_t *)text + block * IDEA_BLOCK);
    }
    for (size_t i = text_length; i < blocks * IDEA_BLOCK; i++)
        if (text[i] != ' ')
            return -1;
    text[text_length] = '\n';
    return (ssize_t)text_length;
}

size_t seal_frame(const struct session *session, char *text, size_t length, char *frame)
{
    static const char digits[] = "0123456789abcdef";
    size_t blocks = length / IDEA_BLOCK + 1;
    char *at = frame + sprintf(frame, "enc:%zu:", length);

    memset(text + length, ' ', blocks * IDEA_BLOCK - length);
    for (size_t block = 0; block < blocks; block++) {
        uint8_t sealed[IDEA_BLOCK];

        idea_block(&session->encipher, (const uint8_t *)text + block * IDEA_BLOCK, sealed);
        for (int i = 0; i < IDEA_BLOCK; i++) {
            *at++ = digits[sealed[i] >> 4];
            *at++ = digits[sealed[i] & 15];
        }
    }
    *at++ = '\n';
    return (size_t)(at - frame);
}
