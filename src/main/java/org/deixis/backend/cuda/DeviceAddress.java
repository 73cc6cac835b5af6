package org.deixis.backend.cuda;

import org.bytedeco.javacpp.Pointer;

/** A device address as the bindings of the libraries want it. */
final class DeviceAddress extends Pointer {
  DeviceAddress(long address) {
    super((Pointer) null);
    this.address = address;
  }
}
