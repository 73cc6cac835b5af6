package org.deixis.bench;

import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.deixis.backend.Backend;
import org.deixis.backend.Scope;
import org.deixis.model.bert.TextBatch;
import org.deixis.model.bert.TextEncoder;
import org.deixis.model.gres.GresConfig;
import org.deixis.model.swin.Swin;
import org.deixis.nn.ParameterSource;
import org.deixis.nn.RandomState;
import org.deixis.tensor.Tensor;

/** Swin-B at 224 and 384, and BERT-base at 20 tokens: forward of one picture or phrase. */
final class EncoderRows {
  private final Bench bench;
  private final Backend backend;

  EncoderRows(Bench bench) {
    this.bench = bench;
    this.backend = bench.backend();
  }

  void measure() {
    bench.attempt("Swin-B 224", () -> swin(224));
    bench.attempt("Swin-B 384", () -> swin(384));
    bench.attempt("BERT-base", this::bert);
  }

  private void swin(int size) {
    String name = "Swin-B " + size + " forward, one picture";
    if (!bench.wants(name)) {
      return;
    }
    try (RandomState random = new RandomState(backend, 1);
        Swin swin =
            new Swin(
                ParameterSource.fresh(backend, 1), GresConfig.DEFAULT.swin(), size, size, random);
        Scope scope = Scope.open()) {
      swin.freeze(bench.dtype());
      Tensor image = Tensor.floats(backend, RandomInputs.picture(size), 1, 3, size, size);
      row(
          name,
          () -> {
            try (Scope inner = Scope.open()) {
              swin.forward(image);
            }
          },
          Map.of("kind", "swin", "config", "swin-b", "images", 1, "size", size));
    }
  }

  private void bert() {
    String name = "BERT-base forward, one phrase of 20 tokens";
    if (!bench.wants(name)) {
      return;
    }
    try (RandomState random = new RandomState(backend, 1);
        TextEncoder text =
            new TextEncoder(ParameterSource.fresh(backend, 1), GresConfig.DEFAULT.text(), random);
        Scope scope = Scope.open()) {
      text.freeze(bench.dtype());
      TextBatch batch =
          text.upload(RandomInputs.tokens(1, GuideRows.TOKENS, GresConfig.DEFAULT.text().vocab()));
      row(
          name,
          () -> {
            try (Scope inner = Scope.open()) {
              text.forward(batch);
            }
          },
          Map.of("kind", "bert", "config", "swin-b", "images", 1, "tokens", GuideRows.TOKENS));
    }
  }

  private void row(String name, Runnable work, Map<String, ?> task) {
    List<PeerProcess.Work> theirs = new ArrayList<>();
    try {
      Map<String, Object> whole = new HashMap<>(task);
      whole.put("dtype", bench.dtypeName());
      bench.prepare(name, Row.PYTORCH, whole, theirs);
      if (bench.compiled()) {
        whole.put("compiled", true);
        bench.prepare(name, Row.PYTORCH_COMPILED, whole, theirs);
      }
      Effort effort = bench.effort(5, 11, 3);
      Contender engine = Contender.engine(backend, work);
      bench.add(Row.timed(Row.Group.ENCODERS, name, bench.time(name, engine, theirs, effort)));
    } finally {
      bench.drop(theirs);
    }
  }
}
