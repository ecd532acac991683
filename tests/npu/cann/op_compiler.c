/* libacl_op_compiler: options of a compiler that compiles nothing. */
#include <stdio.h>
#include <string.h>

#include "acl/acl_op_compiler.h"

/* torch_npu/csrc/framework/LazyInitAclops.cpp takes a size of 0 for an error and "disable" for the answer to
   "are operators compiled just in time". */
static const char value[] = "disable";

size_t aclGetCompileoptSize(aclCompileOpt opt) {
  (void)opt;
  return sizeof value;
}

aclError aclGetCompileopt(aclCompileOpt opt, char *out, size_t length) {
  (void)opt;
  if (length < sizeof value) return ACL_ERROR_INVALID_PARAM;
  memcpy(out, value, sizeof value);
  return ACL_SUCCESS;
}

aclError aclSetCompileopt(aclCompileOpt opt, const char *text) {
  (void)opt, (void)text;
  return ACL_SUCCESS;
}
