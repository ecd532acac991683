/* The ranges of addresses of this process that CANN knows. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define HUGE_PAGE ((size_t)2 << 20)
#define KEY_LENGTH 65 /* of an IPC key: kAclIpcHandleSize, torch_npu/csrc/core/npu/NPUCachingAllocator.h */

enum source { MALLOCED, RESERVED, MAPPED, IMPORTED, PINNED };

struct range {
  char *begin;
  size_t nbytes;
  enum source source;
  int chip;   /* physical; -1: host */
  int device; /* logical */
  int file;   /* that has the bytes; -1: none */
  void *handle;         /* MAPPED: the physical memory */
  char key[KEY_LENGTH]; /* MALLOCED and exported, or IMPORTED */
};

/* What the functions below return is valid between these two calls, until ranges_add or ranges_remove. */
void ranges_lock(void);
void ranges_unlock(void);

struct range *ranges_add(struct range range);
void ranges_remove(struct range *range);

struct range *ranges_at(const void *begin, enum source source);
struct range *ranges_overlapping(const char *begin, size_t nbytes, enum source source);
struct range *ranges_with_key(const char *key, enum source source);

/* The range that has all these bytes; memory that is only reserved has none. */
struct range *ranges_around(const void *address, size_t nbytes);

/* A file of so many bytes of device memory, or -1. */
int memory_file(size_t nbytes);
