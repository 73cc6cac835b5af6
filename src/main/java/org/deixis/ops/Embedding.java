package org.deixis.ops;

import org.deixis.autograd.Tape;
import org.deixis.autograd.Variable;
import org.deixis.backend.Array;
import org.deixis.backend.Backend;
import org.deixis.core.DType;

/**
 * Rows of a table (V, C) by I32 ids (…): result (…, C). Ids must lie in [0, V); callers check them
 * on the host.
 */
public final class Embedding {
  public static final String NAME = "embedding";

  private Embedding() {}

  public static Variable apply(Variable ids, Variable table) {
    Backend k = Check.floating(NAME, table);
    Check.that(
        ids.dtype() == DType.I32 && table.shape().rank() == 2,
        NAME,
        "ids must be I32 and the table (V, C)",
        ids,
        table);
    Array y = Check.make(table, ids.shape().append(table.shape().dim(1)));
    k.embedding(ids.array(), table.array(), y);
    return Tape.record(
        NAME,
        Check.inputs(ids, table),
        y,
        Check.saved(ids.array()),
        c -> {
          if (c.needs(1)) {
            Array dTable = Check.like(table);
            k.embeddingBackward(c.saved(0), c.gradient(0), dTable);
            c.give(1, dTable);
          }
        });
  }
}
