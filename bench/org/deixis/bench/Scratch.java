package org.deixis.bench;

import org.deixis.autograd.Tape;
import org.deixis.backend.Backend;
import org.deixis.backend.Backends;
import org.deixis.backend.Scope;
import org.deixis.data.*;
import org.deixis.eval.Metrics;
import org.deixis.model.gres.*;
import org.deixis.nn.ParameterSource;
import org.deixis.tensor.Tensor;

/** Scratch. */
public final class Scratch {
  public static void main(String[] a) throws Exception {
    int steps = Integer.parseInt(a[0]);
    float peak = a.length > 1 ? Float.parseFloat(a[1]) : 1e-3f;
    long seed = a.length > 2 ? Long.parseLong(a[2]) : 1;
    Backend cpu = Backends.get(System.getProperty("dev", "cpu"));
    SceneMaker.Spec spec = new SceneMaker.Spec("simple", 96, 2000, 128, 8, seed);
    Dataset train = SceneMaker.dataset(spec, "train");
    Dataset val = SceneMaker.dataset(spec, "val");
    try (TextTokenizer tok = SceneMaker.tokenizer("simple");
        GuideModel model =
            new GuideModel(
                ParameterSource.fresh(cpu, seed),
                GresConfig.of("small").withVocab(tok.vocabSize(), tok.padId()));
        DataLoader loader = new DataLoader(train, tok, LoaderConfig.training(96, 8, 4, 24, seed));
        TrainingStep step = new TrainingStep(cpu, model, new GresLoss(0.5f, 1f, null))) {
      System.out.println("vocab " + tok.vocabSize() + " parameters " + model.parameterCount());
      long t0 = System.nanoTime();
      long last = t0;
      long wait = 0;
      for (int i = 0; i < steps; i++) {
        double warm = Math.min(1, (i + 1) / 100.0);
        double rate = peak * warm * 0.5 * (1 + Math.cos(Math.PI * i / steps));
        long w = System.nanoTime();
        Batch b = loader.next();
        wait += System.nanoTime() - w;
        double l = step.run(b, (float) rate, i % 50 == 49 || i == 0);
        loader.recycle(b);
        if (i % 50 == 49 || i == 0) {
          long now = System.nanoTime();
          System.out.printf(
              "%d loss %.4f  %.1f expr/s  wait %.2f s total %.1f s live %d MiB peak %d%n",
              i + 1,
              l,
              (i == 0 ? 1 : 50) * 32 / ((now - last) / 1e9),
              wait / 1e9,
              (now - t0) / 1e9,
              cpu.memory().stats().live() >> 20,
              cpu.memory().stats().peak() >> 20);
          last = now;
        }
      }
      eval(model, val, tok, cpu);
    }
  }

  static void eval(GuideModel model, Dataset val, TextTokenizer tok, Backend cpu) throws Exception {
    Metrics m = new Metrics();
    try (DataLoader l = new DataLoader(val, tok, LoaderConfig.evaluation(96, 8, 4, 24));
        Tape off = Tape.pause()) {
      while (l.hasNext()) {
        Batch b = l.next();
        try (Scope s = Scope.open()) {
          Prediction p =
              model.forward(
                  Tensor.bytes(cpu, b.pixels(), b.images(), b.height(), b.width(), 3),
                  model.upload(
                      new org.deixis.model.bert.Tokens(
                          b.ids(), b.textMask(), b.expressions(), b.tokens())));
          Tensor up =
              p.mask().reshape(b.expressions(), p.mask().dim(1), p.mask().dim(2), 1).resize(96, 96);
          float[] z = up.toFloats();
          float[] none = p.isNegative().toFloats();
          for (int e = 0; e < b.expressions(); e++) {
            byte[] pred = new byte[96 * 96];
            boolean says = none[e] > 0;
            for (int i = 0; i < pred.length; i++)
              pred[i] = (byte) (!says && z[e * pred.length + i] > 0 ? 1 : 0);
            m.add(pred, b.mask(e).data(), says, Metrics.Kind.valueOf(b.samples()[e].kind().name()));
          }
        }
      }
    }
    System.out.println(m.table());
  }
}
