/* aclrtMalloc and aclrtFree. Device memory is a file in memory, so that another process can map it too. */
#define _GNU_SOURCE
#include "memory.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "account.h"
#include "acl/acl_rt.h"
#include "acl/error_codes/rt_error_codes.h"

/* Memory of a device is not zero when it is new. A page in every huge page says so: NaN as a float of any size. */
int memory_file(size_t nbytes) {
  static const unsigned char undefined[4096] = {[0 ... 4095] = 0xff};
  int file = memfd_create("device memory", MFD_CLOEXEC);
  if (file < 0) return -1;
  int failed = ftruncate(file, (off_t)nbytes);
  for (size_t at = 0; at < nbytes && !failed; at += HUGE_PAGE) {
    failed = pwrite(file, undefined, sizeof undefined, (off_t)at) != sizeof undefined;
  }
  if (!failed) return file;
  close(file);
  return -1;
}

/* Round up as the driver does: above 1 MiB to huge pages, else to pages.
   https://www.hiascend.com/document, "aclrtMalloc", ACL_MEM_MALLOC_HUGE_FIRST. */
static size_t in_pages(size_t size, aclrtMemMallocPolicy policy) {
  int huge = size > HUGE_PAGE / 2 && policy != ACL_MEM_MALLOC_NORMAL_ONLY;
  size_t page = huge ? HUGE_PAGE : 4096;
  return (size + page - 1) / page * page;
}

static aclError allocate(const char *name, void **pointer, size_t size, aclrtMemMallocPolicy policy) {
  int device = account_current_device(), chip = account_chip(device);
  if (chip < 0) return account_complain(ACL_ERROR_RT_CONTEXT_NULL, "%s: no device is set", name);
  if (!pointer || !size) return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s of %zu bytes", name, size);
  size_t nbytes = in_pages(size, policy);
  int code = account_fault(name, chip);
  if (!code) code = account_take(chip, KIND_MALLOC, nbytes);
  if (code) return code;
  int file = memory_file(nbytes);
  void *begin = file < 0 ? MAP_FAILED : mmap(NULL, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (begin == MAP_FAILED) {
    account_release(chip, KIND_MALLOC, nbytes);
    return account_complain(ACL_ERROR_RT_RESOURCE_ALLOC_FAIL, "%s: no host memory for %zu bytes", name, nbytes);
  }
  ranges_lock();
  ranges_add((struct range){.begin = begin, .nbytes = nbytes, .chip = chip, .device = device, .file = file});
  ranges_unlock();
  account_record(name, chip, nbytes);
  *pointer = begin;
  return ACL_SUCCESS;
}

/* acl_rt.h: "real alloc size is aligned to 32 bytes and padded with 32 bytes". */
aclError aclrtMalloc(void **devPtr, size_t size, aclrtMemMallocPolicy policy) {
  return allocate(__func__, devPtr, size ? (size + 31) / 32 * 32 + 32 : 0, policy);
}

aclError aclrtMallocAlign32(void **devPtr, size_t size, aclrtMemMallocPolicy policy) {
  return allocate(__func__, devPtr, size, policy);
}

aclError aclrtFree(void *devPtr) {
  ranges_lock();
  struct range *found = ranges_at(devPtr, MALLOCED);
  struct range range = found ? *found : (struct range){0};
  if (found) ranges_remove(found);
  ranges_unlock();
  if (!found) return account_complain(ACL_ERROR_RT_PARAM_INVALID, "aclrtFree of %p, not of aclrtMalloc", devPtr);
  munmap(range.begin, range.nbytes);
  close(range.file);
  account_release(range.chip, KIND_MALLOC, range.nbytes);
  account_record(__func__, range.chip, range.nbytes);
  return ACL_SUCCESS;
}

aclError aclrtGetMemInfo(aclrtMemAttr attr, size_t *free, size_t *total) {
  (void)attr;
  int chip = account_chip(account_current_device());
  if (chip < 0) return account_complain(ACL_ERROR_RT_CONTEXT_NULL, "aclrtGetMemInfo: no device is set");
  *total = account_machine()->chip_bytes;
  *free = *total - account_used(chip);
  return ACL_SUCCESS;
}

static int on_device(const void *address, size_t nbytes) {
  struct range *range = ranges_around(address, nbytes);
  return range && range->source != PINNED;
}

/* Check where both ends are. Memory that is reserved, but not mapped, is neither of a device nor of the host. */
static const char *wrong_copy(void *dst, const void *src, size_t count, aclrtMemcpyKind kind) {
  ranges_lock();
  int to = on_device(dst, count), from = on_device(src, count);
  int gone = (!to && ranges_overlapping(dst, count, RESERVED)) || (!from && ranges_overlapping(src, count, RESERVED));
  ranges_unlock();
  if (gone) return "memory is not mapped";
  if (kind == ACL_MEMCPY_DEFAULT) return NULL;
  int wants_to = kind == ACL_MEMCPY_HOST_TO_DEVICE || kind >= ACL_MEMCPY_DEVICE_TO_DEVICE;
  int wants_from = kind == ACL_MEMCPY_DEVICE_TO_HOST || kind >= ACL_MEMCPY_DEVICE_TO_DEVICE;
  return to == wants_to && from == wants_from ? NULL : "the kind of the copy is not that of the addresses";
}

static aclError copy(const char *name, void *dst, size_t destMax, const void *src, size_t count,
                     aclrtMemcpyKind kind) {
  int chip = account_chip(account_current_device());
  const char *wrong = count > destMax ? "more bytes than the destination has" : wrong_copy(dst, src, count, kind);
  if (wrong) return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s of %zu bytes: %s", name, count, wrong);
  int code = account_fault(name, chip);
  if (code) return code;
  memmove(dst, src, count);
  account_note(name, chip, count, ", \"kind\": %d", kind);
  return ACL_SUCCESS;
}

aclError aclrtMemcpy(void *dst, size_t destMax, const void *src, size_t count, aclrtMemcpyKind kind) {
  return copy(__func__, dst, destMax, src, count, kind);
}

aclError aclrtMemcpyAsync(void *dst, size_t destMax, const void *src, size_t count, aclrtMemcpyKind kind,
                          aclrtStream stream) {
  (void)stream; /* streams do everything at once */
  return copy(__func__, dst, destMax, src, count, kind);
}

static aclError set(const char *name, void *devPtr, size_t maxCount, int32_t value, size_t count) {
  ranges_lock();
  int known = ranges_around(devPtr, count) != NULL;
  ranges_unlock();
  if (count > maxCount || !known) {
    return account_complain(ACL_ERROR_RT_PARAM_INVALID, "%s of %zu of %zu bytes at %p", name, count, maxCount, devPtr);
  }
  memset(devPtr, value, count);
  return ACL_SUCCESS;
}

aclError aclrtMemset(void *devPtr, size_t maxCount, int32_t value, size_t count) {
  return set(__func__, devPtr, maxCount, value, count);
}

aclError aclrtMemsetAsync(void *devPtr, size_t maxCount, int32_t value, size_t count, aclrtStream stream) {
  (void)stream;
  return set(__func__, devPtr, maxCount, value, count);
}
