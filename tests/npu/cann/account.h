/* What the processes of a machine hold of its chips, and which calls are to fail.

   The machine is a directory, named by the environment variable CANN_STAND_IN:
     machine          struct machine, mapped by every process and by harness/npu/machine.py
     journal/PID      one JSON object a line for each call that a test may ask about */
#pragma once

#include <stdint.h>

#define MACHINE_CHIPS 16
#define MACHINE_HOLDERS 256
#define MACHINE_FAULTS 32

enum kind { KIND_MALLOC, KIND_PHYSICAL, KIND_HCCL, KINDS };
enum uuid_mode { UUID_DISTINCT, UUID_SHARED, UUID_NONE };

struct holder {
  int64_t pid;   /* 0: free */
  int64_t start; /* field 22 of /proc/PID/stat: another process may get the pid later */
  uint64_t held[MACHINE_CHIPS][KINDS];
};

struct fault {
  char name[48]; /* of the C function */
  int32_t code;
  int32_t chip; /* -1: any */
  int32_t skip; /* calls that still succeed */
  int32_t count;
};

/* harness/npu/machine.py has the same layout. */
struct machine {
  int32_t chips;
  int32_t uuid_mode;
  uint64_t chip_bytes;
  struct fault faults[MACHINE_FAULTS];
  struct holder holders[MACHINE_HOLDERS];
};

/* The machine of this process; ends the process when CANN_STAND_IN names none. */
const struct machine *account_machine(void);

/* Hold bytes of a physical chip. 0, or ACL_ERROR_RT_MEMORY_ALLOCATION when the chip has not so much. */
int account_take(int chip, enum kind kind, uint64_t nbytes);
void account_release(int chip, enum kind kind, uint64_t nbytes);

/* Bytes of a physical chip that living processes hold. */
uint64_t account_used(int chip);

/* Add a call to the journal of this process; account_note adds fields in JSON: ", \"owner\": 7". */
void account_record(const char *name, int chip, uint64_t nbytes);
__attribute__((format(printf, 4, 5))) void account_note(const char *name, int chip, uint64_t nbytes,
                                                        const char *format, ...);

/* The code that this call is to return, or 0; counts the call. */
int account_fault(const char *name, int chip);

/* Number of devices that ASCEND_RT_VISIBLE_DEVICES leaves, and the physical chip of one, or -1. */
int account_devices(void);
int account_chip(int device);

/* The device of this thread, or -1 when none was set. */
int account_current_device(void);

/* Start time of a living process in clock ticks, or -1. */
int64_t account_start_time(int64_t pid);

/* Print a wrong use on stderr, so that it does not pass unseen, and return the code. */
__attribute__((format(printf, 2, 3))) int account_complain(int code, const char *format, ...);
