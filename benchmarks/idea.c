#include "idea.h"

#include <string.h>

/* Multiply modulo 65537, where the word 0 stands for 65536. */
static uint16_t multiply(uint16_t a, uint16_t b)
{
    uint32_t product = (uint32_t)a * b;
    uint16_t low = (uint16_t)product;
    uint16_t high = (uint16_t)(product >> 16);

    if (product == 0) /* at least one is 65536, which is -1 here */
        return (uint16_t)(1 - a - b);
    return (uint16_t)(low - high + (low < high));
}

/* 1/a modulo 65537, by Fermat: a to the power of 65535, whose sixteen bits are all 1. */
static uint16_t inverse(uint16_t a)
{
    uint16_t power = a;

    for (int bit = 1; bit < 16; bit++)
        power = multiply(multiply(power, power), a);
    return power;
}

static uint16_t negative(uint16_t a)
{
    return (uint16_t)-a;
}

void idea_keys(const uint8_t key[IDEA_KEY], struct idea *encipher, struct idea *decipher)
{
    unsigned __int128 ring = 0;
    uint16_t *e = encipher->subkeys, *d = decipher->subkeys;

    for (int i = 0; i < IDEA_KEY; i++)
        ring = ring << 8 | key[i];
    for (int i = 0; i < IDEA_SUBKEYS; i++) { /* eight words, turn by 25 bits, eight words, ... */
        if (i > 0 && i % 8 == 0)
            ring = ring << 25 | ring >> 103;
        e[i] = (uint16_t)(ring >> (112 - 16 * (i % 8)));
    }
    /* Deciphering undoes the rounds from the last to the first. Between rounds the two middle
     * words are exchanged, so their subkeys are too, except at both ends. */
    for (int round = 0; round <= 8; round++) {
        const uint16_t *from = e + 6 * (8 - round);
        uint16_t *to = d + 6 * round;
        int middle = round == 0 || round == 8;

        to[0] = inverse(from[0]);
        to[1] = negative(from[middle ? 1 : 2]);
        to[2] = negative(from[middle ? 2 : 1]);
        to[3] = inverse(from[3]);
        if (round < 8) {
            to[4] = from[-2];
            to[5] = from[-1];
        }
    }
}

void idea_block(const struct idea *cipher, const uint8_t in[IDEA_BLOCK], uint8_t out[IDEA_BLOCK])
{
    const uint16_t *k = cipher->subkeys;
    uint16_t x[4], mixed, other, exchanged;

    for (int i = 0; i < 4; i++)
        x[i] = (uint16_t)(in[2 * i] << 8 | in[2 * i + 1]);
    for (int round = 0; round < 8; round++, k += 6) {
        x[0] = multiply(x[0], k[0]);
        x[1] = (uint16_t)(x[1] + k[1]);
        x[2] = (uint16_t)(x[2] + k[2]);
        x[3] = multiply(x[3], k[3]);
        mixed = multiply(x[0] ^ x[2], k[4]);
        other = multiply((uint16_t)(mixed + (x[1] ^ x[3])), k[5]);
        mixed = (uint16_t)(mixed + other);
        x[0] ^= other;
        x[3] ^= mixed;
        exchanged = x[1] ^ mixed;
        x[1] = x[2] ^ other;
        x[2] = exchanged;
    }
    exchanged = x[1];
    x[0] = multiply(x[0], k[0]);
    x[1] = (uint16_t)(x[2] + k[1]);
    x[2] = (uint16_t)(exchanged + k[2]);
    x[3] = multiply(x[3], k[3]);
    for (int i = 0; i < 4; i++) {
        out[2 * i] = (uint8_t)(x[i] >> 8);
        out[2 * i + 1] = (uint8_t)x[i];
    }
}

int idea_works(void)
{
    static const uint8_t key[IDEA_KEY] = {0, 1, 0, 2, 0, 3, 0, 4, 0, 5, 0, 6, 0, 7, 0, 8};
    static const uint8_t plain[IDEA_BLOCK] = {0, 0, 0, 1, 0, 2, 0, 3};
    static const uint8_t sealed[IDEA_BLOCK] = {0x11, 0xfb, 0xed, 0x2b, 0x01, 0x98, 0x6d, 0xe5};
    struct idea encipher, decipher;
    uint8_t there[IDEA_BLOCK], back[IDEA_BLOCK];

    idea_keys(key, &encipher, &decipher);
    idea_block(&encipher, plain, there);
    idea_block(&decipher, there, back);
    return memcmp(there, sealed, sizeof sealed) == 0 && memcmp(back, plain, sizeof plain) == 0;
}
