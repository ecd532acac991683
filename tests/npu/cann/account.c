#define _GNU_SOURCE
#include "account.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "acl/acl_rt.h"
#include "acl/error_codes/rt_error_codes.h"

static pthread_once_t once = PTHREAD_ONCE_INIT;
static pthread_mutex_t threads = PTHREAD_MUTEX_INITIALIZER;
static struct machine *machine;
static char directory[4000];
static int file = -1;
static int visible[MACHINE_CHIPS];
static int devices;

/* CANN reads the list up to the first device that does not exist or the first other character, and numbers what it
   has read from 0. It supports ascending lists only; here another one ends where it descends. */
static void read_visible_devices(void) {
  const char *list = getenv("ASCEND_RT_VISIBLE_DEVICES");
  if (!list) {
    for (devices = 0; devices < machine->chips; devices++) visible[devices] = devices;
    return;
  }
  while (isdigit((unsigned char)*list)) {
    char *end;
    long chip = strtol(list, &end, 10);
    if (chip >= machine->chips || (devices && chip <= visible[devices - 1])) return;
    visible[devices++] = (int)chip;
    if (*end != ',') return;
    list = end + 1;
  }
}

static void open_machine(void) {
  const char *name = getenv("CANN_STAND_IN");
  char path[4096];
  snprintf(directory, sizeof directory, "%s", name ? name : "");
  snprintf(path, sizeof path, "%s/machine", directory);
  file = open(path, O_RDWR | O_CLOEXEC);
  void *at = MAP_FAILED;
  if (file >= 0) at = mmap(NULL, sizeof *machine, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (at == MAP_FAILED) {
    fprintf(stderr, "CANN_STAND_IN=%s: %s: %s\n", directory, path, strerror(errno));
    exit(1);
  }
  machine = at;
  read_visible_devices();
}

const struct machine *account_machine(void) {
  pthread_once(&once, open_machine);
  return machine;
}

/* Between processes a lock of the file, which the kernel releases when its process dies. */
static void set_lock(short type) {
  struct flock all = {.l_type = type, .l_whence = SEEK_SET};
  while (fcntl(file, F_SETLKW, &all) && errno == EINTR) {
  }
}

static void lock(void) {
  account_machine();
  pthread_mutex_lock(&threads);
  set_lock(F_WRLCK);
}

static void unlock(void) {
  set_lock(F_UNLCK);
  pthread_mutex_unlock(&threads);
}

int64_t account_start_time(int64_t pid) {
  char path[64], text[1024];
  snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
  int stat = open(path, O_RDONLY | O_CLOEXEC);
  if (stat < 0) return -1;
  ssize_t length = read(stat, text, sizeof text - 1);
  close(stat);
  if (length <= 0) return -1;
  text[length] = 0;
  /* The name in parentheses may contain anything; the state follows it, field 3. */
  char *field = strrchr(text, ')');
  if (!field || field[2] == 'Z' || field[2] == 'X') return -1;
  for (int number = 2; number < 22; number++) field = strchr(field + 1, ' ');
  return strtoll(field, NULL, 10);
}

/* The bytes in use, without those of processes that have died. Call it with the lock. */
static uint64_t sum(int chip) {
  uint64_t used = 0;
  for (int i = 0; i < MACHINE_HOLDERS; i++) {
    struct holder *one = &machine->holders[i];
    if (!one->pid) continue;
    if (one->pid != getpid() && account_start_time(one->pid) != one->start) {
      memset(one, 0, sizeof *one);
      continue;
    }
    for (int kind = 0; kind < KINDS; kind++) used += one->held[chip][kind];
  }
  return used;
}

/* The entry of this process. Call it with the lock, after sum. */
static struct holder *self(void) {
  struct holder *empty = NULL;
  int64_t pid = getpid();
  for (int i = 0; i < MACHINE_HOLDERS; i++) {
    struct holder *one = &machine->holders[i];
    if (one->pid == pid) return one;
    if (!one->pid && !empty) empty = one;
  }
  if (!empty) {
    fprintf(stderr, "more than %d processes hold device memory\n", MACHINE_HOLDERS);
    abort();
  }
  empty->pid = pid;
  empty->start = account_start_time(pid);
  return empty;
}

/* Record what this process holds of a kind from now on. */
static void record_held(int chip, enum kind kind, uint64_t held) {
  static const char *const names[KINDS] = {"malloc", "physical", "hccl"};
  account_note("held", chip, held, ", \"kind\": \"%s\"", names[kind]);
}

int account_take(int chip, enum kind kind, uint64_t nbytes) {
  uint64_t held = 0;
  lock();
  uint64_t used = sum(chip);
  int fits = used + nbytes <= machine->chip_bytes;
  if (fits) held = self()->held[chip][kind] += nbytes;
  unlock();
  if (!fits) return ACL_ERROR_RT_MEMORY_ALLOCATION;
  record_held(chip, kind, held);
  return 0;
}

void account_release(int chip, enum kind kind, uint64_t nbytes) {
  lock();
  uint64_t held = self()->held[chip][kind] -= nbytes;
  unlock();
  record_held(chip, kind, held);
}

uint64_t account_used(int chip) {
  lock();
  uint64_t used = sum(chip);
  unlock();
  return used;
}

void account_note(const char *name, int chip, uint64_t nbytes, const char *format, ...) {
  struct timespec now;
  char path[4096], fields[256], line[512];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(fields, sizeof fields, format, arguments);
  va_end(arguments);
  uint64_t used = chip < 0 ? 0 : account_used(chip);
  clock_gettime(CLOCK_MONOTONIC, &now);
  int length = snprintf(line, sizeof line,
                        "{\"at\": %lld, \"pid\": %d, \"name\": \"%s\", \"chip\": %d, \"nbytes\": %llu, "
                        "\"used\": %llu%s}\n",
                        (long long)now.tv_sec * 1000000000 + now.tv_nsec, getpid(), name, chip,
                        (unsigned long long)nbytes, (unsigned long long)used, fields);
  snprintf(path, sizeof path, "%s/journal/%d", directory, getpid());
  int journal = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (journal < 0 || write(journal, line, (size_t)length) != length) perror(path);
  close(journal);
}

void account_record(const char *name, int chip, uint64_t nbytes) {
  account_note(name, chip, nbytes, "%s", "");
}

static int requested(const char *name) {
  for (int i = 0; i < MACHINE_FAULTS; i++) {
    if (machine->faults[i].count && !strcmp(machine->faults[i].name, name)) return 1;
  }
  return 0;
}

int account_fault(const char *name, int chip) {
  int code = 0;
  account_machine();
  if (!requested(name)) return 0; /* without the lock: every copy asks */
  lock();
  for (int i = 0; i < MACHINE_FAULTS && !code; i++) {
    struct fault *one = &machine->faults[i];
    if (!one->count || strcmp(one->name, name) || (one->chip >= 0 && one->chip != chip)) continue;
    if (one->skip) {
      one->skip--;
      continue;
    }
    one->count--;
    code = one->code;
  }
  unlock();
  if (code) account_note(name, chip, 0, ", \"code\": %d", code);
  return code;
}

int account_devices(void) {
  account_machine();
  return devices;
}

int account_chip(int device) {
  account_machine();
  return device >= 0 && device < devices ? visible[device] : -1;
}

int account_complain(int code, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  fprintf(stderr, "[cann stand-in] ");
  vfprintf(stderr, format, arguments);
  fprintf(stderr, ": error %d\n", code);
  va_end(arguments);
  return code;
}
