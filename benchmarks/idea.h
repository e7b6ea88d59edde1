/* IDEA: 64-bit blocks, a 128-bit key, each block on its own (what lond and lonc cipher with). */
#ifndef IDEA_H
#define IDEA_H

#include <stdint.h>

enum { IDEA_BLOCK = 8, IDEA_KEY = 16, IDEA_SUBKEYS = 52 };

/* A key made ready; enciphering and deciphering differ only in these numbers. */
struct idea {
    uint16_t subkeys[IDEA_SUBKEYS];
};

void idea_keys(const uint8_t key[IDEA_KEY], struct idea *encipher, struct idea *decipher);
void idea_block(const struct idea *cipher, const uint8_t in[IDEA_BLOCK], uint8_t out[IDEA_BLOCK]);

/* 1 when this code turns a published plaintext into its published ciphertext and back. */
int idea_works(void);

#endif
