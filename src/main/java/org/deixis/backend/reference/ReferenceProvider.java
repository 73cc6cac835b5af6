package org.deixis.backend.reference;

import org.deixis.backend.Backend;
import org.deixis.backend.Backends;

/** Announces the reference backend, which runs everywhere, as "reference". */
public final class ReferenceProvider implements Backends.Provider {
  @Override
  public String name() {
    return ReferenceBackend.NAME;
  }

  @Override
  public String missing() {
    return null;
  }

  @Override
  public Backend create() {
    return new ReferenceBackend();
  }
}
